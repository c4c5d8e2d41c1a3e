//! Stories on local clones. Each has a master, machines and ports of its own, so they run side by side: most of what they
//! do is wait. What measures time, or takes the whole machine, is in `alone`.

/// Each of these stories once with records in a file, and once with records in a database.
macro_rules! on_both_stores {
    ($($story:ident),* $(,)?) => {
        mod on_sqlite {
            $(
                #[test]
                fn $story() {
                    super::$story(&aot_tests::rig::Rig::local());
                }
            )*
        }

        mod on_postgres {
            $(
                #[test]
                fn $story() {
                    if let Some(rig) = aot_tests::rig::Rig::on_postgres(stringify!($story)) {
                        super::$story(&rig);
                    }
                }
            )*
        }
    };
}

mod again;
mod agent_static;
mod ansible;
mod apply;
mod blobs;
mod bundles;
mod clustershell;
mod cp;
mod crash;
mod doctor;
mod editor;
mod end;
mod events;
mod exec;
mod failure;
mod jobs;
mod launch;
mod left;
mod liar;
mod lifecycle;
mod links;
mod master;
mod records;
mod revoke;
mod rolling_apply;
mod rootless;
mod salt;
mod secrets;
mod shell;
mod ssh;
mod terminal;
mod vars;
mod ways;
mod why_it_failed;
