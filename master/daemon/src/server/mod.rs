//! gRPC and HTTP in, inputs and commands out; no decisions. Agents come by TLS (`listener`), operators by a unix socket, and by
//! way of other masters (`door`, `peer`).

mod accept;
pub(crate) mod agent_api;
mod arrival;
pub(crate) mod boot_api;
mod boot_pass;
mod copy_both;
pub(crate) mod door;
#[cfg(test)]
mod fake_fleet;
mod forwards;
mod health;
mod hello;
pub(crate) mod lifetime;
pub(crate) mod limits;
pub(crate) mod listener;
mod named_stream;
pub(crate) mod operator_api;
mod operator_name;
mod owner_tls;
pub(crate) mod peer;
mod pending;
pub(crate) mod proxy_header;
pub(crate) mod route;
pub(crate) mod serve;
mod strangers;
mod taken_over;
mod transfers;
pub(crate) mod ways;
