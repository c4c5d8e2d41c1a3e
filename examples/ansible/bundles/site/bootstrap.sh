#!/bin/bash
# Runs a playbook of this bundle on this machine. Arguments: the playbook, then anything that ansible-playbook takes.
set -eu
playbook=$1
shift

# Where the image has no Ansible it goes into a folder of its own, once per machine and version.
if ! command -v ansible-playbook > /dev/null; then
    wanted=${ANSIBLE:-ansible-core}
    venv=/opt/ansible
    if [ "$(cat "$venv/installed" 2> /dev/null)" != "$wanted" ]; then
        if ! python3 -c 'import ensurepip, venv' 2> /dev/null; then
            export DEBIAN_FRONTEND=noninteractive
            apt-get -q update
            apt-get -q -y install python3-venv
        fi
        echo "installing $wanted in $venv"
        python3 -m venv --clear "$venv"
        "$venv/bin/pip" install --quiet "$wanted"
        echo "$wanted" > "$venv/installed"
    fi
    PATH=$venv/bin:$PATH
fi

# The one host of the inventory is this machine, by the name of its instance. A stage has no terminal, and its output is read
# by people.
export ANSIBLE_NOCOLOR=1 ANSIBLE_PYTHON_INTERPRETER=auto_silent ANSIBLE_LOCALHOST_WARNING=0
exec ansible-playbook --connection local --inventory "$AOT_INSTANCE," "$playbook" "$@"
