#!/bin/bash
# Says where it runs, and leaves a file behind.
set -eu
. /etc/os-release
echo "$AOT_INSTANCE runs $PRETTY_NAME on $(uname -m)"
date -u +%FT%TZ > /var/tmp/bootstrapped-by-aot
