#!/bin/bash
# A worker: fetches the configuration from the manager, which is ready by then (`needs: manager/1`).
set -eu
role=${1:?datanode or nodemanager}
mkdir -p /etc/cdh/conf
scp -q manager:/media/ebs/conf/workers /etc/cdh/conf/workers
grep -qx "$AOT_INSTANCE" /etc/cdh/conf/workers
echo "$role" > /etc/cdh/role
echo "$AOT_INSTANCE is a $role"
