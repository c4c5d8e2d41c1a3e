//! What `--help` says besides flags: the groups of commands, and examples. Texts only.

/// Commands by what one wants to do; every command that is not hidden is in exactly one group.
pub const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Describe and launch",
        &["check", "plan", "launch", "schema"],
    ),
    (
        "Look",
        &[
            "status",
            "list",
            "dns",
            "ip",
            "facts",
            "logs",
            "jobs",
            "agents",
            "orphans",
            "inventory",
            "ssh-config",
        ],
    ),
    (
        "Work on instances",
        &[
            "exec", "cp", "shell", "apply", "wait", "update", "start", "stop", "reboot",
        ],
    ),
    ("End", &["terminate", "cleanup"]),
    ("The master itself", &["serve", "shutdown"]),
];

/// Of the program.
pub const TOP: &str = "\
Examples:
  aot-master launch cluster.yml
  aot-master status
  aot-master exec '*' ping
  aot-master exec 'pool:web and not name:web3' -- systemctl restart nginx
  aot-master logs web1 --stage 0 -f
  aot-master cleanup hadoop

A TARGET is a glob on instance names ('*', 'web*', 'web{1,2}'), a list (web1,web2), or an
expression: pool:web, name:db1, state:failed, tag:env=prod, fact:os.name=debian, re:^web[0-9]+$,
@group (of the file's groups:) with and, or, not, ( ). --exclude TARGET and --limit N narrow it;
aot-master list TARGET shows what it means.

Exit codes:
  0    all well
  1    it ran, and something failed on some target
  2    bad usage or bad file
  3    no instance matches
  4    the master or the provider cannot be reached
  130  interrupted; the job goes on";

/// Of `serve`.
pub const SERVE: &str = "\
Examples:
  aot-master serve --listen 0.0.0.0:7440 --advertise master.example.org:7440
  AOT_STATE_DIR=/srv/aot aot-master serve --listen 127.0.0.1:0

launch and most other commands start a master in the background when none answers; serve is for a service manager.";

/// Of `check`.
pub const CHECK: &str = "\
Examples:
  aot-master check cluster.yml";

/// Of `plan`.
pub const PLAN: &str = "\
Examples:
  aot-master plan cluster.yml
  aot-master plan cluster.yml --prune --json
  aot-master plan cluster.yml --json | jq -r 'select(.problem) | .problem'

Exit 1 when launch would refuse: all that stands in its way is listed at the end.";

/// Of `schema`.
pub const SCHEMA: &str = "\
Examples:
  aot-master schema > cluster.schema.json";

/// Of `launch`.
pub const LAUNCH: &str = "\
Examples:
  aot-master launch cluster.yml
  aot-master launch cluster.yml --detach
  aot-master launch cluster.yml --prune --yes --timeout 20m
  aot-master --json launch cluster.yml | jq -c 'select(.event == \"stage-ended\")'

Run it again at any time: what is ready is left alone, what was interrupted is resumed, what changed is run.
Ctrl-C leaves the launch running; launch the same file again to follow it.";

/// Of `status`.
pub const STATUS: &str = "\
Examples:
  aot-master status
  aot-master status --json | jq -r 'select(.phase == \"failed\") | .name'";

/// Of `list`.
pub const LIST: &str = "\
Examples:
  aot-master list
  aot-master list 'web*' -p
  aot-master list state:failed -s
  aot-master list -oq";

/// Of `dns`.
pub const DNS: &str = "\
The public name, or the private one where there is no public one.

Examples:
  aot-master dns
  aot-master dns 'pool:web' --json";

/// Of `ip`.
pub const IP: &str = "\
The public address, or the private one where there is no public one.

Examples:
  aot-master ip
  ssh admin@$(aot-master ip web1)";

/// Of `facts`.
pub const FACTS: &str = "\
In the shape of /etc/cluster_facts.json: what the provider and the file say, the machine's own facts under node.
`claimed` names what only the machine says; nothing it says can take the place of the rest.

Examples:
  aot-master facts web1
  aot-master facts '*' --json | jq -r '[.instance, .facts.ip_address] | @tsv'";

/// Of `wait`.
pub const WAIT: &str = "\
Examples:
  aot-master wait '*' --state ready --timeout 20m
  aot-master wait 'web*' --state terminated";

/// Of `update`.
pub const UPDATE: &str = "\
Examples:
  aot-master update
  aot-master update 'web*'";

/// Of `exec`.
pub const EXEC: &str = "\
Examples:
  aot-master exec '*' ping
  aot-master exec web1 tail /var/log/syslog 50
  aot-master exec 'web*' uptime
  aot-master exec '*' 'df -h / | tail -1'
  aot-master exec pool:web --timeout 5m -- apt-get install -y nginx
  aot-master exec pool:web --canary 1 --concurrency 25% --max-errors 0 -- systemctl restart nginx
  aot-master exec '*' --queue 1h -- update-ca-certificates
  aot-master exec '*' --out logs/ -- journalctl -u nginx
  aot-master exec 'db*' --stdin -- psql < fix.sql
  aot-master exec web1 -- ping -c1 web2

ping, facts and version alone, and stat PATH and tail PATH [LINES], are answered by the agent itself. All after --
is run on the host, without a shell. Without --, one quoted line is run by /bin/sh; with --shell, several words too.
Every target ends in exactly one of succeeded, failed, timed_out, cancelled, rejected, absent and lost_contact.

Ctrl-C in a terminal asks: detach (d, or Ctrl-C again) leaves the job running, exit 130; cancel (c) ends it
everywhere and shows how, exit 1. Elsewhere Ctrl-C detaches. aot-master jobs looks at it afterwards.";

/// Of `apply`.
pub const APPLY: &str = "\
Examples:
  aot-master apply
  aot-master apply 'web*' --from 1
  aot-master apply web1 --force
  aot-master apply --failed

What succeeded is left alone unless --from or --force says otherwise. --failed takes the instances of TARGET on which a
stage failed, and those that wait for one of them; none is exit 0. An apply is judged by its own instances alone.";

/// Of `logs`.
pub const LOGS: &str = "\
Examples:
  aot-master logs web1
  aot-master logs 'web*' --stage 0
  aot-master logs '*' -f

-f goes on over new attempts and over instances that join, until Ctrl-C (exit 130).";

/// Of `jobs`.
pub const JOBS: &str = "\
Examples:
  aot-master jobs
  aot-master jobs -n 5 --json
  aot-master jobs show 01K9
  aot-master jobs retry 01K9 --failed

The beginning of an id is enough, with or without job-, when it fits only one.";

/// Of `jobs show`.
pub const JOBS_SHOW: &str = "\
Exit 0 also when the job failed; --json prints what exec --json printed.

Examples:
  aot-master jobs show 01K9
  aot-master jobs show 01K9 --no-output
  aot-master jobs show 01K9 --out logs/";

/// Of `jobs follow`.
pub const JOBS_FOLLOW: &str = "\
Shows what was printed so far, then what comes. Exit code and Ctrl-C are those of exec.

Examples:
  aot-master jobs follow 01K9";

/// Of `jobs cancel`.
pub const JOBS_CANCEL: &str = "\
Every process that the job started on a target gets TERM, and KILL after the grace time.
Ends when all targets have ended; exit 1 when the end of one is not known.

Examples:
  aot-master jobs cancel 01K9
  aot-master jobs cancel 01K9 --grace 1m";

/// Of `jobs retry`.
pub const JOBS_RETRY: &str = "\
Examples:
  aot-master jobs retry 01K9
  aot-master jobs retry 01K9 --failed --detach";

/// Of `agents`.
pub const AGENTS: &str = "\
Examples:
  aot-master agents
  aot-master agents --json | jq -r 'select(.connected | not) | .instance'
  aot-master agents revoke web3

A revoked machine is shut out at once and for good, whatever token or certificate it shows. Its instance waits for
another machine: terminate it, and launch again.";

/// Of `start`.
pub const START: &str = "\
Ends when all of them run. Their agents come back by themselves, with their new addresses.

Examples:
  aot-master start web3
  aot-master start state:stopped --timeout 5m";

/// Of `stop`.
pub const STOP: &str = "\
Ends when all of them are stopped. Disks and lasting addresses stay; other public addresses are lost.

Examples:
  aot-master stop web3
  aot-master stop 'pool:web' --yes";

/// Of `reboot`.
pub const REBOOT: &str = "\
Examples:
  aot-master reboot web3
  aot-master reboot 'pool:web and not name:web1' --yes --timeout 5m";

/// Of `orphans`.
pub const ORPHANS: &str = "\
Looks at this host, at the regions of all clusters and at the region of the AWS settings, and lists what carries
a tag of aot and belongs to no cluster of this master, and machines that the account no longer shows.
Exit 1 when there is something to list. An unknown cluster may be another master's.

Examples:
  aot-master orphans
  aot-master orphans --region eu-west-1 --json
  aot-master orphans --delete 5f0c0de1a7b94f0f8ad34b2c9e6d1f20 --region eu-west-1";

/// Of `terminate`.
pub const TERMINATE: &str = "\
Examples:
  aot-master terminate web3
  aot-master terminate 'pool:web' --yes";

/// Of `cleanup`.
pub const CLEANUP: &str = "\
Prints a receipt: one line for each thing and what became of it. Exit 1 while anything is left.
Never deletes what aot only found.

Examples:
  aot-master cleanup
  aot-master cleanup hadoop --yes";

/// Of `shutdown`.
pub const SHUTDOWN: &str = "\
Examples:
  aot-master shutdown";

/// The whole program's help template: the groups instead of clap's flat list.
pub fn template(command: &clap::Command) -> String {
    let about = |name: &str| {
        let found = command
            .find_subcommand(name)
            .and_then(clap::Command::get_about);
        found.map(ToString::to_string).unwrap_or_default()
    };
    let mut text = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    for (group, names) in GROUPS {
        text.push_str(&format!("\n{group}:\n"));
        for name in names {
            text.push_str(&format!("  {name:<10} {}\n", about(name)));
        }
    }
    text.push_str("\nOptions of every command:\n{options}{after-help}");
    text
}

/// Of `cp`.
pub const CP: &str = "\
One side is TARGET:/path, with an absolute path. Folders are copied with all that is in
them, with modes and times, links as links; nothing is ever written through a link.
A path that ends in / is a folder, made when it is missing; FOLDER/. is what is in it.
From a target that is the plain name of one instance, files go straight to DST; from
any other, to DST/INSTANCE/.

Examples:
  aot-master cp nginx.conf 'pool:web:/etc/nginx/'
  aot-master cp -- 'web*:/var/log/app' logs/
  aot-master cp site/. web1,web2:/srv/www --concurrency 1
  aot-master cp web1:/etc/hosts hosts.web1";

/// Of `shell`.
pub const SHELL: &str = "\
Opens the user's login shell (or COMMAND, without a shell) in a terminal on the instance, through
its agent. It is on record as a job: `aot-master jobs` shows who, when and how long, and
`aot-master jobs cancel ID` hangs it up.

Ends with the exit status of what ran there (128 and the number of a signal that ended it); with 4
when contact is lost, 130 after ~. and 1 when the agent is not there or refuses. Whatever ends it
but the program itself hangs up what runs there: SIGHUP, after 5 s SIGKILL. What has a session of
its own (setsid, tmux) lives on.

At the start of a line:  ~.  leaves   ~?  lists these   ~~  types a tilde

Without a terminal here, standard input is typed as it is, and its end as Ctrl-D until the program
ends; `aot-master exec --stdin` is made for pipes.

Examples:
  aot-master shell web1
  aot-master shell web1 --user admin -- htop";

/// Of `inventory`.
pub const INVENTORY: &str = "\
Hosts are the instances that have a machine; groups are the pools, and the saved groups of the cluster's file.
aot_claimed names the variables that only the machine says; what Ansible would evaluate in them is left out.

Examples:
  aot-master inventory --ansible > inventory.json
  aot-master inventory --ansible --host web1

As an inventory script of Ansible, an executable file with:
  #!/bin/sh
  exec aot-master inventory --ansible \"$@\"";

/// Of `ssh-config`.
pub const SSH_CONFIG: &str = "\
Writes the host keys that the machines have told their agents to the known hosts file, for the whole cluster, and
prints a block for each instance of the target. ssh then knows them by name, whatever their addresses.

Examples:
  aot-master ssh-config > ~/.ssh/hadoop.conf     # and in ~/.ssh/config: Include hadoop.conf
  aot-master ssh-config 'pool:web' --known-hosts ~/.ssh/known_hosts.hadoop";
