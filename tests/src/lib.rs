//! What the end-to-end tests share: real binaries, real TLS, real machines. Called by the tests in `tests/` only.
//!
//! [`rig`] runs one `aot-master` of its own, [`bundle`] writes what it is given, [`programs`] installs programs, [`machine`] looks into local clones
//! from outside, [`lab`] runs EC2 in a box, [`liar`] is an agent that lies, [`screen`] gives a command a terminal, [`jobs`] looks at jobs, [`proxy`] cuts
//! links, [`cut`] the way to a database, [`muted`] keeps answers, [`bucket`] is one of S3, [`debian`] unpacks packages and [`python`] installs them, [`sshd`] lets ssh into clones,
//! [`wait`] waits for conditions, [`bench`] is what the benches share, [`fleet`] has masters on one database and thousands
//! of simulated agents. Nothing but [`fleet`] knows the insides of the programs under test: it writes their records, and its
//! agents decide as real ones do.

pub mod bench;
pub mod bucket;
pub mod bundle;
pub mod cut;
pub mod debian;
pub mod fleet;
#[cfg(test)]
mod heard;
pub mod jobs;
pub mod lab;
pub mod liar;
pub mod machine;
pub mod muted;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod python;
pub mod rig;
pub mod screen;
pub mod sshd;
pub mod wait;
