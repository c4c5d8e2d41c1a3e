#!/bin/bash
# What every node needs before anything else. Safe to run again.
set -eu
echo "vm.swappiness = 1" > /etc/sysctl.d/90-hadoop.conf
sysctl -q -p /etc/sysctl.d/90-hadoop.conf || echo "swappiness is left as it is"

# Peers are known by name already: aot keeps /etc/hosts, ssh keys and known hosts.
getent hosts "$AOT_INSTANCE"
