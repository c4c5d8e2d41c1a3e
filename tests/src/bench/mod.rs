//! What the benches share: figures and goals, and the bare programs that aot is compared with.
//!
//! A bench starts itself again for each process that it needs: call [`roles::played`] first in its `main`. Absolute
//! times mean little; every bench measures aot and what it is compared with in the same run.

pub mod agents;
pub mod bare;
pub mod copy;
pub mod figures;
pub mod joining;
pub mod master;
pub mod operator;
pub mod program;
pub mod roles;
pub mod tls;
