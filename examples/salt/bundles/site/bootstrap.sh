#!/bin/bash
# Applies states of this bundle on this machine. Arguments: those of state.apply.
set -eu

# Where the image has no Salt it goes into a folder of its own, once per machine and version.
if ! command -v salt-call > /dev/null; then
    wanted=${SALT:-salt}
    venv=/opt/salt
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

# The settings of this run alone. The facts of all instances, by name, and who this is, are grains: JSON is YAML, too.
mkdir -p etc
printf 'file_client: local\nlog_file: /dev/null\n' > etc/minion
printf '{"aot": {"instance": "%s", "cluster": %s}}\n' "$AOT_INSTANCE" "$(cat "$AOT_CLUSTER_FACTS")" > etc/grains

exec salt-call --local --config-dir "$PWD/etc" --id "$AOT_INSTANCE" --file-root "$PWD/states" --pillar-root "$PWD/pillar" \
    --retcode-passthrough --no-color --state-output changes state.apply "$@"
