#!/bin/bash
# A stage. Exit 0: it is done, and is not run again until this folder, its args or its env change. Exit 194: reboot, then
# run it again. Anything else: it failed.
set -euo pipefail

greeting=${1:-Hello}
echo "$greeting from $AOT_INSTANCE of cluster $AOT_CLUSTER, attempt $AOT_ATTEMPT"

# What is known of every instance: JSON, by name.
echo "cluster facts are in $AOT_CLUSTER_FACTS"
