//! Every size and time that both sides must agree on.

use std::time::Duration;

/// Newest version of the Attach protocol that this build speaks, see [`crate::version`].
pub const PROTOCOL: u32 = 7;

/// Oldest version of the Attach protocol that this build still speaks. A session of it is given only what was there then.
pub const OLDEST_PROTOCOL: u32 = 4;

/// Shortest secret: what is shorter shows up anywhere by chance, so masking it would say what it is.
pub const MIN_SECRET_BYTES: usize = 4;

/// Longest secret, which is the longest that AWS Secrets Manager has.
pub const MAX_SECRET_BYTES: usize = 64 << 10;

/// Most secrets of a cluster, and so of a run.
pub const MAX_SECRETS: usize = 100;

/// Longest secrets of a cluster together: they go in one message.
pub const MAX_ALL_SECRETS_BYTES: usize = 1 << 20;

/// Longest name or ARN of a secret in AWS: both services allow 2,048 characters.
pub const MAX_SECRET_ID_BYTES: usize = 2048;

/// Longest name of a version of it: a label of a parameter has 100 characters at most, a staging label 256.
pub const MAX_SECRET_VERSION_BYTES: usize = 256;

/// Largest gRPC message either side accepts on the control lane.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Largest answer to an operator: a status of 20,000 instances with their properties, and their facts of some KiB each, fit. The
/// master is trusted.
pub const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Most instances of which an operator is shown what they are printing: as many as a high terminal has lines for.
pub const MAX_LAST_LINES: usize = 64;

/// Largest cluster facts that an agent takes, packed and unpacked: twice what 20,000 instances with facts of 4 KiB come to.
pub const MAX_CLUSTER_FACTS_BYTES: u64 = 256 << 20;

/// Largest output payload of one spool frame. A pipe holds 64 KiB (pipe(7)): one read empties it, nearly, and four such
/// frames fit into a piece.
pub const FRAME_BYTES: usize = 60 << 10;

/// Largest piece of a spool in one `SpoolData`; always whole frames.
pub const SPOOL_CHUNK_BYTES: usize = 256 << 10;

/// Spool bytes that an agent sends ahead of the master's acknowledgement, over all its runs. Bounds what a ping can
/// wait behind, and what the master holds for one session.
pub const SPOOL_WINDOW_BYTES: usize = 512 << 10;

/// Output of one run that is kept unless the job says otherwise; what is past it is counted and marked.
pub const DEFAULT_OUTPUT_CAP_BYTES: u64 = 1 << 30;

/// Sessions that are sent cluster facts at once.
pub const HAND_OUT_TURNS: usize = 128;

/// How long one of them has its turn at most: an agent that reads slowly continues in its next one.
pub const HAND_OUT_TURN: Duration = Duration::from_secs(10);

/// Most runs that an agent names in Hello. Older ended runs are dropped from it first.
pub const MAX_RUNS: usize = 4096;

/// How often each side says that it is there.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// A session whose other side said nothing for this long is over.
pub const SILENCE: Duration = Duration::from_secs(20);

/// Most masters of a fleet that a machine knows; more are left out.
pub const MAX_MASTERS: usize = 16;

/// What each end of a forwarded connection may send ahead of what the other end has passed on, in bytes and
/// [`TUNNEL_PIECE_COST`]s. Bounds what waits for a slow reader, and with the round trip the speed of one connection.
pub const TUNNEL_WINDOW: u32 = 1 << 20;

/// What a piece counts for beside its bytes. Many small ones that wait to be read would end the HTTP/2 connection below them.
pub const TUNNEL_PIECE_COST: u32 = 4 << 10;

/// Most bytes of a forwarded connection in one message: with what goes around them they fit into one frame of HTTP/2.
pub const TUNNEL_DATA_BYTES: usize = 60 << 10;

/// Connections of one forward at once; further ones wait to be accepted.
pub const MAX_TUNNELS: usize = 256;

/// Longest path of a unix socket (unix(7), `sun_path`), without the byte that ends it.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Longest address of a master, `host:port`.
pub const MAX_ADDRESS_BYTES: usize = 255;

/// Shortest time over which agents that lose their master spread their first tries.
pub const MIN_RECONNECT_SPREAD: Duration = Duration::from_millis(200);

/// Longest one: half of the time after which a master takes the contact to an agent for lost.
pub const MAX_RECONNECT_SPREAD: Duration = Duration::from_secs(15);

/// Largest enrolment request, all fields together.
pub const MAX_ENROL_BYTES: usize = 32 << 10;

/// Largest facts document of one agent.
pub const MAX_FACTS_BYTES: usize = 256 << 10;

/// EC2's limit on user-data, before base64 (EC2 User Guide, "Work with instance user data").
pub const MAX_USER_DATA_BYTES: usize = 16_384;

/// Most reboots (exit status 194) of one stage.
pub const MAX_STAGE_REBOOTS: u32 = 5;

/// Exit status of `bootstrap.sh` that asks for a reboot and another run of the same stage.
pub const EXIT_REBOOT: i32 = 194;

/// Largest bundle, as packed.
pub const MAX_BUNDLE_BYTES: u64 = 8 << 30;

/// Largest sum of file sizes in a bundle, unpacked.
pub const MAX_UNPACKED_BYTES: u64 = 32 << 30;

/// Most entries of a bundle.
pub const MAX_BUNDLE_ENTRIES: u64 = 1_000_000;

/// Largest JSON of a cluster's variables: with them, what starts a stage is still one message.
pub const MAX_VARS_BYTES: usize = 256 << 10;

/// Largest archive of a copy.
pub const MAX_COPY_BYTES: u64 = 1 << 40;

/// Most entries of a copy's archive.
pub const MAX_COPY_ENTRIES: u64 = 10_000_000;
