//! Stories on EC2 in a box. Each has a lab of its own, in namespaces of its own, so they run side by side: most of what
//! they do is wait for machines. `aarch64` is here because its build fills the time in which the others wait.

mod aarch64;
mod account;
mod attest;
mod cloud_config;
mod crash;
mod faults;
mod fleet;
mod fleet_killed;
mod fleet_kms;
mod gone;
mod iam;
mod images;
mod join;
mod late;
mod launch;
mod lifecycle;
mod machine;
mod machine_secrets;
mod network;
mod preflight;
mod refused;
mod remote;
mod rolling;
mod secrets;
mod taken_over;
mod volumes;
