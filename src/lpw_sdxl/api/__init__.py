"""The HTTP border: endpoints, the guard before them, errors and the OpenAPI document."""
