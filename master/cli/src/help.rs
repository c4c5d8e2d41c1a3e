//! What `--help` shows besides flags: the groups of commands, notes and examples. Texts only, one constant per command.
//! No line is longer than [`WIDTH`]: clap would break it, and the next line of the source would start anew behind it.

mod fleet;
mod program;

pub(crate) use fleet::{FLEET, FLEET_IMPORT, FLEET_INIT, FLEET_LEVEL, FLEET_REKEY};
pub(crate) use program::{BUNDLE_LOGS, COMPLETION, CONFIG, DOCTOR, INIT, VERSION};

/// Columns of every help text, on however wide a terminal.
pub(crate) const WIDTH: usize = 80;

/// Commands by what one wants to do; every command that is not hidden is in exactly one group.
pub(crate) const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Describe and launch",
        &["init", "check", "plan", "launch", "schema"],
    ),
    (
        "Inspect",
        &[
            "status",
            "list",
            "dns",
            "ip",
            "facts",
            "logs",
            "jobs",
            "events",
            "agents",
            "orphans",
            "inventory",
            "ssh-config",
        ],
    ),
    (
        "Work on instances",
        &[
            "exec", "cp", "shell", "forward", "connect", "apply", "wait", "update", "start",
            "stop", "reboot",
        ],
    ),
    ("Tear down", &["terminate", "cleanup"]),
    (
        "The master itself",
        &[
            "serve",
            "restart",
            "masters",
            "fleet",
            "attestation",
            "config",
            "doctor",
            "bundle-logs",
            "version",
            "shutdown",
            "completion",
        ],
    ),
];

pub(crate) const TOP: &str = "\
Examples:
  aot-master launch cluster.yml
  aot-master status
  aot-master exec '*' ping
  aot-master exec 'pool:web and not name:web3' -- systemctl restart nginx
  aot-master logs web1 --stage setup -f
  aot-master cleanup hadoop

A TARGET is a glob on instance names ('*', 'web*'), ranges ('node[13-20]'), a
list (a,b), a pool's name, all, or an expression: pool:web, name:db1,
state:failed, tag:env=prod, fact:os.name=debian, re:^web[0-9]+$, @group (from
the file's groups:), joined by and, or, not and ( ). An instance goes before a
pool of its name. --exclude TARGET and --limit N narrow it.
aot-master list TARGET shows which instances it selects.

Exit codes:
  0    success
  1    it ran, and something failed on at least one target
  2    bad usage or bad file
  3    no instance matches
  4    the master or the provider cannot be reached
  130  interrupted; the job is still running";

pub(crate) const SERVE: &str = "\
Examples:
  aot-master serve --listen 0.0.0.0:7440 --advertise master.example.org:7440
  AOT_STATE_DIR=/srv/aot aot-master serve --listen 127.0.0.1:0

launch and most other commands start a master in the background when none
answers; serve is for a service manager.";

pub(crate) const CHECK: &str = "\
Examples:
  aot-master check
  aot-master check cluster.yml --set size=10 --expanded";

pub(crate) const PLAN: &str = "\
Examples:
  aot-master plan cluster.yml
  aot-master plan cluster.yml --prune --json
  aot-master plan cluster.yml --vars production.yml --set size=10
  aot-master plan cluster.yml --json | jq -r 'select(.problem) | .problem'
  aot-master plan web
  aot-master plan web --set version=2

With a TARGET it shows what apply would do to these instances: the file as it
was launched last, with its bundles as they are now. With --set or --vars, too,
the file is read, as apply does then.

Exits 1 when launch would refuse, and lists every reason at the end.";

pub(crate) const SCHEMA: &str = "\
Examples:
  aot-master schema > cluster.schema.json";

pub(crate) const LAUNCH: &str = "\
Examples:
  aot-master launch
  aot-master launch cluster.yml --detach
  aot-master launch cluster.yml --set cluster=staging
  aot-master launch cluster.yml --prune --yes --timeout 20m
  aot-master --json launch cluster.yml | jq -c 'select(.event == \"stage-ended\")'

Run it again at any time: what is ready is left alone, what was interrupted is
resumed, and what changed is run. Ctrl-C leaves the launch running; launch the
same file again to follow it.";

pub(crate) const STATUS: &str = "\
Examples:
  aot-master status
  aot-master status web2
  aot-master status --watch
  aot-master status --json | jq -r 'select(.phase == \"failed\") | .name'";

pub(crate) const LIST: &str = "\
Examples:
  aot-master list
  aot-master list 'web*' -p
  aot-master list state:failed -s
  aot-master list -oq";

pub(crate) const DNS: &str = "\
Prints the public name, or the private one if there is no public one.

Examples:
  aot-master dns
  aot-master dns 'pool:web' --json";

pub(crate) const IP: &str = "\
Prints the public address, or the private one if there is no public one.

Examples:
  aot-master ip
  ssh admin@$(aot-master ip web1)";

pub(crate) const FACTS: &str = "\
Has the layout of /etc/cluster_facts.json: what the provider and the file say
at the top, what the machine reports about itself under node. claimed lists
the names that only the machine reports; they never replace the others.

Examples:
  aot-master facts web1
  aot-master facts '*' --json | jq -r '[.instance, .facts.ip_address] | @tsv'";

pub(crate) const WAIT: &str = "\
Examples:
  aot-master wait '*' --state ready --timeout 20m
  aot-master wait 'web*' --state terminated";

pub(crate) const UPDATE: &str = "\
Examples:
  aot-master update
  aot-master update 'web*'";

pub(crate) const EXEC: &str = "\
Examples:
  aot-master exec '*' ping
  aot-master exec web1 tail /var/log/syslog 50
  aot-master exec 'web*' uptime
  aot-master exec '*' 'df -h / | tail -1'
  aot-master exec pool:web --timeout 5m -- apt-get install -y nginx
  aot-master exec pool:web --canary 1 --concurrency 25% -- nginx -s reload
  aot-master exec pool:web --max-errors 0 -- systemctl restart nginx
  aot-master exec '*' --queue 1h -- update-ca-certificates
  aot-master exec '*' --out logs/ -- journalctl -u nginx
  aot-master exec 'db*' --stdin -- psql < fix.sql
  aot-master exec web1 -- ping -c1 web2

The agent itself answers ping, facts and version without arguments, stat PATH,
and tail PATH [LINES]. Everything after -- runs on the host, without a shell.
Without --, a single quoted line runs in /bin/sh; with --shell, so do several
words. Every target ends in exactly one of succeeded, failed, timed_out,
cancelled, rejected, absent and lost_contact.

Ctrl-C on a terminal asks what to do: detach (d, or Ctrl-C again) leaves the
job running and exits 130; cancel (c) ends it everywhere, shows the outcomes
and exits 1. Without a terminal, Ctrl-C detaches. See aot-master jobs.";

pub(crate) const APPLY: &str = "\
Examples:
  aot-master apply
  aot-master apply 'web*' --from server
  aot-master apply web1 --force
  aot-master apply --failed
  aot-master apply web --canary 1 --concurrency 25%
  aot-master apply web --set version=2

--set and --vars have the file read again, as launch does: the whole cluster
has these values from then on, and the instances of TARGET are brought there.
More than stages may not change with it. Without them, the file is applied as it
was launched last.

Stages that succeeded are left alone, except with --from or --force. --failed
selects the instances of TARGET on which a stage failed, and those that wait
for one of them; it exits 0 if there are none. The exit code depends on the
selected instances only.";

pub(crate) const LOGS: &str = "\
Examples:
  aot-master logs
  aot-master logs web1
  aot-master logs 'web*' --stage flaky
  aot-master logs '*' -f

Without a TARGET, they are those of the last job: what it printed, or, of a
launch or an apply, what the stages of its instances printed. An instance that
is named last is name:last.

-f continues through new attempts, and with instances that join, until Ctrl-C
(exit 130).";

pub(crate) const EVENTS: &str = "\
Examples:
  aot-master events
  aot-master events --since 30m
  aot-master events -f --json | jq -c 'select(.event == \"stage-ended\")'
  aot-master events -f --since 2026-12-01T07:30:00Z

The master that has the cluster remembers its last events, 20,000 of all its
clusters together, since it was started. With -f alone, only new ones are shown;
with --since, those since then first. -f ends with exit code 0 once nothing is
left of the cluster, and with 130 on Ctrl-C.";

pub(crate) const JOBS: &str = "\
Examples:
  aot-master jobs
  aot-master jobs -n 5 --json
  aot-master jobs show
  aot-master jobs show 01K9
  aot-master jobs retry last --failed

The beginning of an id is enough if only one id begins with it; job- may be
left out. Without an id, or with last, the newest job is meant. On a terminal
the list has ids as short as they can be.";

pub(crate) const JOBS_SHOW: &str = "\
Exits 0 even if the job failed; --json prints what exec --json printed.

Examples:
  aot-master jobs show 01K9
  aot-master jobs show 01K9 --no-output
  aot-master jobs show 01K9 --out logs/";

pub(crate) const JOBS_FOLLOW: &str = "\
Shows what was printed so far, then new output as it comes. The exit code and
Ctrl-C are those of exec.

Examples:
  aot-master jobs follow 01K9";

pub(crate) const JOBS_CANCEL: &str = "\
Every process that the job started on a target gets TERM, and KILL after the
grace time. Ends when all targets have ended; exits 1 if it is unknown how one
of them ended.

Examples:
  aot-master jobs cancel 01K9
  aot-master jobs cancel 01K9 --grace 1m";

pub(crate) const JOBS_RETRY: &str = "\
Examples:
  aot-master jobs retry 01K9
  aot-master jobs retry 01K9 --failed --detach";

pub(crate) const AGENTS: &str = "\
Examples:
  aot-master agents
  aot-master agents --json | jq -r 'select(.connected | not) | .instance'
  aot-master agents revoke web3

A revoked machine is shut out at once and for good, whatever token or
certificate it presents. Its instance waits for another machine: terminate it,
and launch again.";

pub(crate) const MASTERS: &str = "\
Examples:
  aot-master masters
  aot-master masters --json | jq -r 'select(.alive | not) | .id'
  aot-master masters move web ip-10-0-1-10
  aot-master masters drain ip-10-0-1-10      before work on its host

Masters on one database (AOT_STORE, AOT_FLEET_KEY) share their records. Each
cluster has one of them at a time; a command reaches it by way of any.";

pub(crate) const MASTERS_MOVE: &str = "\
The cluster stays where it was placed: no other master takes it as its share,
and after that master was away, it goes back there once there is room for it.
Only another move changes that.

Examples:
  aot-master masters move web ip-10-0-1-10";

pub(crate) const ATTESTATION: &str = "\
AWS signs an identity document for each EC2 instance. With the certificate of
the region, the master can verify it, and a stolen join token alone is useless.
Copy the RSA-2048 certificate of your region from the EC2 User Guide (\"AWS
public certificates for instance identity signatures\") into a file. From then
on launches require the document, unless the file says otherwise
(attestation:).

Examples:
  aot-master attestation import eu-west-1.pem
  aot-master attestation import --region eu-west-1 downloaded.txt";

pub(crate) const START: &str = "\
Ends when all of them are running. Their agents reconnect by themselves, with
their new addresses.

Examples:
  aot-master start web3
  aot-master start state:stopped --timeout 5m";

pub(crate) const STOP: &str = "\
Ends when all of them are stopped. Disks and Elastic IPs are kept; other public
addresses are lost.

Examples:
  aot-master stop web3
  aot-master stop 'pool:web' --yes";

pub(crate) const REBOOT: &str = "\
Examples:
  aot-master reboot web3
  aot-master reboot 'pool:web and not name:web1' --yes --timeout 5m";

pub(crate) const ORPHANS: &str = "\
Searches this host, the regions of all clusters and the region of the AWS
settings. Lists what has a tag of aot but belongs to no cluster of this master
or of those that share its records, and machines that the account no longer
shows. Exits 1 if it finds any. An unknown cluster may belong to a master with
other records.

Examples:
  aot-master orphans
  aot-master orphans --region eu-west-1 --json
  aot-master orphans --delete 5f0c0de1a7b94f0f8ad34b2c9e6d1f20";

pub(crate) const TERMINATE: &str = "\
Examples:
  aot-master terminate web3
  aot-master terminate 'pool:web' --yes";

pub(crate) const CLEANUP: &str = "\
Prints a receipt: one line per resource, with what became of it. Exits 1 while
anything is left. Never deletes what aot did not create.

Examples:
  aot-master cleanup
  aot-master cleanup hadoop --yes";

pub(crate) const SHUTDOWN: &str = "\
Examples:
  aot-master shutdown";

pub(crate) const RESTART: &str = "\
A master in the background has the settings of the shell that started it
(AWS_PROFILE, ...). This command gives it the settings of this shell, and this
version of the program. Values once given with --listen, --advertise,
--agent-dir and --keep-* are kept until you give others. Stages and commands in
progress continue and lose nothing; terminals are closed.

Examples:
  aot-master restart
  AWS_PROFILE=prod aot-master restart
  aot-master restart --listen 0.0.0.0:7440 --advertise 203.0.113.10:7440";

/// The whole program's help template: the groups instead of clap's flat list.
pub(crate) fn template(command: &clap::Command) -> String {
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
            text.push_str(&format!("  {name:<11} {}\n", about(name)));
        }
    }
    text.push_str("\nOptions of every command:\n{options}{after-help}");
    text
}

pub(crate) const CP: &str = "\
One side is TARGET:/path, with an absolute path. Folders are copied with
everything in them, with modes and times, links as links; nothing is ever
written through a link. A path that ends in / is a folder, created if it does
not exist; FOLDER/. stands for its contents. If the target is the plain name of
one instance, its files are copied straight to DST; otherwise to DST/INSTANCE/.

Examples:
  aot-master cp nginx.conf 'pool:web:/etc/nginx/'
  aot-master cp -- 'web*:/var/log/app' logs/
  aot-master cp site/. web1,web2:/srv/www --concurrency 1
  aot-master cp web1:/etc/hosts hosts.web1";

pub(crate) const SHELL: &str = "\
Opens the user's login shell (or runs COMMAND, without a shell) in a terminal
on the instance, through its agent. It is recorded as a job: aot-master jobs
shows who opened it, when and for how long, and aot-master jobs cancel ID hangs
it up.

Exits with the status of what ran there (128 plus the signal that ended it);
with 4 if contact is lost, 130 after ~. and 1 if the agent is not connected or
refuses. Unless the program ends by itself, what runs there is hung up: SIGHUP,
and SIGKILL after 5 s. What has a session of its own (setsid, tmux) survives.

At the start of a line:  ~.  leaves   ~?  lists these   ~~  types a tilde

Without a terminal, standard input is typed as it is, and its end as Ctrl-D
until the program ends. For pipes, use aot-master exec --stdin.

Examples:
  aot-master shell web1
  aot-master shell web1 --user admin -- htop";

pub(crate) const FORWARD: &str = "\
Listens on this host until Ctrl-C and leads each connection through the agent of
the instance to a port of it (its loopback), to a unix socket of it, or to HOST
as the instance reaches it. The last is refused unless /etc/aot/agent.toml there
says forward = \"any\". Prints where it listens; port 0 takes any free one.

It is recorded as a job: aot-master jobs shows who had it, when, to where, and
how many bytes it carried; aot-master jobs cancel ID ends it.

Exits with 0 after Ctrl-C, 1 if the job is cancelled, 4 if contact is lost. A
connection that the instance refuses is reset, and the forward continues.

Examples:
  aot-master forward web1:80 8080
  aot-master forward manager:7180
  aot-master forward web1:db.internal:5432 0
  aot-master forward web1:/run/docker.sock ./docker.sock";

pub(crate) const CONNECT: &str = "\
For ssh's ProxyCommand, which aot-master ssh-config writes: ssh, scp, rsync and
sftp then reach machines without a port that is open to them. Recorded as a job,
as forward is. Ends when the instance closes the connection; exits with 1 if it
refuses, or the connection breaks.

Examples:
  aot-master connect web1
  aot-master connect web1 80
  ssh -o 'ProxyCommand aot-master connect %h %p' admin@web1";

pub(crate) const INVENTORY: &str = "\
Hosts are the instances that have a machine; groups are the pools, and the
groups saved in the cluster's file. Without --cluster, all clusters are in it,
each with a group of its name if there are several; a host whose name is in two
of them is NAME.CLUSTER. aot_claimed lists the variables that only
the machine reports; values that Ansible would evaluate are left out.

Examples:
  aot-master inventory --ansible > inventory.json
  aot-master inventory --ansible --host web1

To use it as an inventory script of Ansible, make an executable file with:
  #!/bin/sh
  exec aot-master inventory --ansible \"$@\"";

pub(crate) const SSH_CONFIG: &str = "\
Writes the host keys that the agents reported to the known hosts file, for the
whole cluster, and prints a block for each selected instance. ssh then knows
them by name, and reaches them through their agents (aot-master connect): no
port needs to be open. With --direct it goes to their addresses.

Examples:
  aot-master ssh-config > ~/.ssh/hadoop.conf
  aot-master ssh-config 'pool:web' --known-hosts ~/.ssh/known_hosts.hadoop

Then put this line into ~/.ssh/config:
  Include hadoop.conf";
