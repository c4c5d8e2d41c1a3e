#!/bin/bash
# Stage 0: greets in the name of this instance. Its output: aot-master logs lead --stage 0
set -eu
word=${1:-Hello}

# aot tells a stage who it is by these variables.
echo "$word from $AOT_INSTANCE of cluster $AOT_CLUSTER, stage $AOT_STAGE"

# Every instance has the facts of all: an object from name to facts.
test -s "$AOT_CLUSTER_FACTS"
echo "$word" > greeting.txt
