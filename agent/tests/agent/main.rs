//! The real agent process against a small master over real TLS.

#[expect(
    clippy::disallowed_methods,
    reason = "a test's tasks end with its runtime"
)]
mod fake;

mod cancel;
mod enrolment;
mod machine_secrets;
mod masters;
mod runs;
mod secrets;
mod session;
mod shim;
mod stages;
mod survival;
mod tunnels;
mod users;
