#!/bin/sh
# Imports what the build arguments CHECKPOINT and LORAS name, and divides it in two folders:
#   build_models.sh FOLDER   FOLDER/weights has the tensors, FOLDER/rest all else
# Each becomes a layer. File times are fixed, so that a layer changes with its content.
set -eu
folder=$1
key=/run/secrets/CIVITAI_TOKEN
if [ -f "$key" ]; then
  CIVITAI_TOKEN=$(cat "$key")
  export CIVITAI_TOKEN
fi
export XDG_CACHE_HOME=/tmp/cache  # downloads go there

mkdir -p "$folder/weights" "$folder/rest" "$BENTOML_HOME/models"
if [ "${CHECKPOINT:-}" = demo ]; then
  python -m lpw_sdxl demo
elif [ -n "${CHECKPOINT:-}" ]; then
  # shellcheck disable=SC2086 # several options
  python -m lpw_sdxl checkpoint "$CHECKPOINT" --remove-source ${CHECKPOINT_OPTIONS:-}
fi
if [ -n "${LORAS:-}" ]; then
  # shellcheck disable=SC2086 # several LoRAs
  python -m lpw_sdxl lora $LORAS --remove-source
fi

cd "$BENTOML_HOME"
find models -name '*.safetensors' | while read -r file; do
  mkdir -p "$folder/weights/$(dirname "$file")"
  mv "$file" "$folder/weights/$file"
done
cp -a models "$folder/rest/"
find "$folder" -exec touch -h -d '1980-01-01T00:00:00Z' {} +
