//! gRPC and HTTP in, inputs and commands out; no decisions. Agents come by TLS (`listener`), operators by a unix socket, and by
//! way of other masters (`door`, `peer`).

pub(crate) mod agent_api;
pub(crate) mod boot_api;
pub(crate) mod door;
pub(crate) mod lifetime;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod operator_api;
pub(crate) mod peer;
pub(crate) mod serve;
mod shells;
mod strangers;
mod transfers;
pub(crate) mod ways;
