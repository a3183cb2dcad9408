"""A picture for examples of requests in the OpenAPI document."""

EXAMPLE_PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAT0lEQVR42u3PQQkAAAgEsItjJtMZ1Qi+hcEKLDX9"
    "WgQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQELguwhiEP4esa3QAAAABJRU5ErkJg"
    "gg=="
)
"""A PNG of 64 x 64 pixels, the smallest that is drawn from, in base64."""
