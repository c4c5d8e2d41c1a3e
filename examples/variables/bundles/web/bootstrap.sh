#!/bin/bash
# Stage 0: its argument and its environment come from the variables of the file, and so does what the template became.
set -eu
port=$1

echo "$MOTTO, port $port"
echo "$SHOWN: $HOME"
cat etc/site.conf
