//! gRPC and HTTP in, inputs and commands out; no decisions. Agents come by TLS (`listener`), operators by a unix socket.

pub mod agent_api;
pub mod boot_api;
pub mod limits;
pub mod listener;
pub mod operator_api;
pub mod serve;
mod shells;
mod transfers;
