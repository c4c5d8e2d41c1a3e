#!/bin/sh
# Says what it was given, and fails when asked to.
echo "in $(pwd): $*"
echo "to the other" >&2
[ "$1" != fail ]
