//! What the end-to-end tests share: real binaries, real TLS, real machines. Called by the tests in `tests/` only.
//!
//! [`rig`] runs one `aot-master` of its own, [`bundle`] writes what it is given, [`programs`] installs programs, [`machine`] looks into local clones
//! from outside, [`lab`] runs EC2 in a box, [`liar`] is an agent that lies, [`screen`] gives a command a terminal, [`jobs`] looks at jobs, [`proxy`] cuts
//! links, [`wait`] waits for conditions, [`bench`] is what the benches share. Nothing here knows the insides of the programs
//! under test.

pub mod bench;
pub mod bundle;
pub mod cut;
pub mod jobs;
pub mod lab;
pub mod liar;
pub mod machine;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod rig;
pub mod screen;
pub mod wait;
