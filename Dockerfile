# arcshard for 1 to 8 GPUs, or none; docs/container.md shows how to build and run it.
#
# CUDA comes with the wheels of torch and DALI; the machine brings the driver and the NVIDIA Container Toolkit. Any Debian
# or Ubuntu with Python 3.11 or 3.12 and pip will do as the base, NVIDIA's too.
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG CUDA=13

# torch.compile builds code at run time.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/arcshard
COPY . .
RUN pip install --no-cache-dir ".[cuda${CUDA},demo,serve]"

# Not root at run time: a folder that is mounted at /work must be this user's, or run with --user.
RUN useradd --create-home --uid 1000 arcshard
USER arcshard
WORKDIR /work

# Threads that wait for each other sleep instead of spinning.
ENV OMP_WAIT_POLICY=PASSIVE PYTHONUNBUFFERED=1
ENTRYPOINT ["arcshard"]
CMD ["--help"]
