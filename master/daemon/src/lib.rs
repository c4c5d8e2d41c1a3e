//! The master itself: the agents' port and the operators' socket, sessions, enrolment, and the loop that brings the model's
//! decisions to the store, the providers and the agents. Called by the program, which takes a master through its phases
//! ([`Opened`], [`Bound`], [`Running`]) and hands it who makes machines ([`Providers`]).

#![warn(unreachable_pub)]

pub mod enrol;
mod fleet;
mod log_limit;
mod run;
mod server;
mod session;

pub use run::providers::{MakeEc2, Providers};
/// What decides on whom another master passes on: for tests that feed it whatever bytes there are.
pub use server::proxy_header::is_header;
pub use server::serve::{Bound, Error, Opened, Running, ServeOptions, Stop, lock_to_move};
/// What decides on an agent's messages: for tests that feed it whatever bytes there are.
pub use session::protocol::{Protocol, SessionInput};
