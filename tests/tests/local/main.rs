//! Stories on local clones. Each has a master, machines and ports of its own, so they run side by side: most of what they
//! do is wait. What measures time, or takes the whole machine, is in `alone`.

mod agent_static;
mod apply;
mod bundles;
mod clustershell;
mod cp;
mod crash;
mod end;
mod exec;
mod failure;
mod jobs;
mod launch;
mod left;
mod liar;
mod lifecycle;
mod links;
mod master;
mod revoke;
mod rootless;
mod shell;
mod ssh;
mod terminal;
