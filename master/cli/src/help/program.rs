//! Notes and examples of what the program answers by itself.

pub(crate) const INIT: &str = "\
The file describes two clones of this machine (provider: local): no cloud, no
cost. Every line says what it is for. Nothing that is there is overwritten.

Examples:
  aot-master init
  aot-master init shop";

pub(crate) const CONFIG: &str = "\
The origin is a flag, a variable, a file with its path, or default. A file is
read as serve and the commands here read it; a master that runs has the
settings of its own start. Passwords in the database's URL are not shown.

Examples:
  aot-master config
  AOT_CLUSTER=shop aot-master config --json";

pub(crate) const DOCTOR: &str = "\
A line for each thing that was looked at: ok, skipped, warn or fail, and the way
out below. Exits 1 if something fails. Starts no master, and changes nothing; if
one runs, it also asks the providers of its clusters what a launch would ask.

Examples:
  aot-master doctor
  aot-master doctor --json | jq -r 'select(.level == \"fail\") | .message'";

pub(crate) const BUNDLE_LOGS: &str = "\
In the file: the end of the master's log, the settings with their origins,
versions, status, agents, masters, jobs, events, and what doctor finds. Not in
it: what commands and stages printed, the words of commands after the first,
files, keys. What looks like a password, a token or a key is removed. It has
mode 0600 and some MiB at most. Starts no master.

Examples:
  aot-master bundle-logs
  aot-master bundle-logs /tmp/report.tar.gz";

pub(crate) const VERSION: &str = "\
Starts no master: without one, only the version of this program is shown.

Examples:
  aot-master version
  aot-master version --json";

pub(crate) const COMPLETION: &str = "\
The script asks this program for every completion, and this program asks the
master that runs for names: of instances, pools, jobs, stages and clusters. It
never starts a master, and waits less than a tenth of a second for one.

Examples:
  aot-master completion bash > /etc/bash_completion.d/aot-master
  aot-master completion zsh > ~/.zfunc/_aot-master
  aot-master completion fish > ~/.config/fish/completions/aot-master.fish";
