#!/bin/sh
# Install what benchmarks/packing.py and benchmarks/loaders.py compare with, in a virtual environment of its own (8 GB):
#
#     apt-get install pkg-config libopencv-dev libturbojpeg0-dev     (as root: FFCV is built against these)
#     apt-get install ffmpeg                                         (as root: SPDL loads its libraries)
#     benchmarks/peers/install.sh [FOLDER]                           (default: .peers; PYTHON=python3.12 chooses another)
set -eu
here=$(dirname "$0")
folder=${1:-$here/../../.peers}
for library in opencv4 libturbojpeg; do
    pkg-config --exists "$library" || {
        echo "install.sh: FFCV is built against OpenCV and libjpeg-turbo, but pkg-config does not find $library:" \
             "run apt-get install pkg-config libopencv-dev libturbojpeg0-dev" >&2
        exit 2
    }
done
"${PYTHON:-python3.11}" -m venv "$folder"
pip() { "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
pip -r "$here/requirements.txt"
pip --no-build-isolation ffcv==1.0.2  # its setup.py fails in pip's empty build environment
echo "installed: $folder"
