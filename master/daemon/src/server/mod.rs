//! gRPC and HTTP in, inputs and commands out; no decisions. Agents come by TLS (`listener`), operators by a unix socket.

pub(crate) mod agent_api;
pub(crate) mod boot_api;
pub(crate) mod lifetime;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod operator_api;
pub(crate) mod serve;
mod shells;
mod strangers;
mod transfers;
