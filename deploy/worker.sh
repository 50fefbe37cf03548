#!/bin/sh
# A worker: clones the repository on its first start, configures DVC's remote, and runs one stage at a time.
set -eu
: "${SEGFLOW_CLONE:?name the folder of the clone of this worker}"
: "${SEGFLOW_GIT:?give the address of the git repository}"
: "${SEGFLOW_DVC_REMOTE:?give the address of the DVC remote, such as s3://segflow-data/dvc}"
: "${PREFECT_API_URL:?give the address of the API of Prefect}"
: "${MLFLOW_TRACKING_URI:?give the address of MLflow}"

if [ ! -e "$SEGFLOW_CLONE/.git" ]; then
    git clone --quiet "$SEGFLOW_GIT" "$SEGFLOW_CLONE"
    git -C "$SEGFLOW_CLONE" config segflow.worker true
fi
cd "$SEGFLOW_CLONE"
python -m dvc remote add --quiet --force --local --default store "$SEGFLOW_DVC_REMOTE"
if [ -n "${SEGFLOW_S3_ENDPOINT:-}" ]; then
    python -m dvc remote modify --quiet --local store endpointurl "$SEGFLOW_S3_ENDPOINT"
fi
exec python -m prefect worker start --type process --pool "${SEGFLOW_POOL:-segflow}" --limit 1
