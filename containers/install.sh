#!/bin/sh
# What the Dockerfile and apptainer.def do alike, as root on Debian, in a folder with the
# repository's files: sh containers/install.sh {dependencies|app|models}
set -eu

pip_install() {
    python3 -m pip --python /opt/venv/bin/python install --no-cache-dir "$@"
}

case $1 in
dependencies) # to /opt/venv, without pip; no compiler takes part
    python3 -m venv --without-pip /opt/venv
    python3 - >requirements.txt <<'PYTHON'
import configparser

parser = configparser.ConfigParser()
parser.read("setup.cfg")
print(parser["options"]["install_requires"])
PYTHON
    pip_install --constraint constraints.txt --requirement requirements.txt
    # Headers serve to compile extensions, and the packages' own tests serve nobody here.
    rm -rf /opt/venv/lib/python3*/site-packages/torch/include
    find /opt/venv -depth -type d -name tests -exec rm -r {} +
    echo /opt/app >"$(echo /opt/venv/lib/python3*/site-packages)/app.pth"
    ;;
app) # to /opt/app
    pip_install --no-deps --target /opt/app .
    ;;
models) # those that MODELS names, to /opt/models
    mkdir -p /opt/models
    set -- --models-dir /opt/models
    if [ -n "${MODELS_URL-}" ]; then set -- "$@" --url "$MODELS_URL"; fi
    if [ "${ACCEPT_LICENCE-}" = yes ]; then set -- "$@" --accept-licence; fi
    for model in ${MODELS-}; do
        if [ "$model" != open ]; then /opt/app/bin/brainstem-models fetch "$model" "$@"; fi
    done
    chmod -R a+rX /opt/models
    ;;
esac
