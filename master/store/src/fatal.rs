//! Parts that the master can't be without. A panic ends only the task or thread that it happens in: without such a part the
//! process would live on and serve nobody, and nothing would start it again.

use std::process;

/// Exit status after a panic of such a part (sysexits.h, EX_SOFTWARE). What the parts know is on disk: a service manager
/// starts the master again.
pub const EXIT_PANIC: i32 = 70;

/// Held by a part for as long as it works: ends the process when the part panics.
#[derive(Debug)]
pub struct Vital(&'static str);

impl Vital {
    /// The part's name is for the log.
    pub fn new(part: &'static str) -> Self {
        Self(part)
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                part = self.0,
                "a part that the master needs panicked; the master stops, and continues from its disk at the next start"
            );
            process::exit(EXIT_PANIC);
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's tasks end with it")]
mod tests {
    use super::*;

    /// Says to this test, run in a process of its own, that it is to panic.
    const CHILD: &str = "AOT_TEST_PANICS";

    #[tokio::test]
    async fn a_panic_of_a_vital_task_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            let task = tokio::spawn(async {
                let _vital = Vital::new("test");
                panic!("as a fault would");
            });
            let _ = task.await; // it ends with the process
            process::exit(0);
        }
        let test = "fatal::tests::a_panic_of_a_vital_task_ends_the_process";
        let ended = process::Command::new(std::env::current_exe().expect("its own path"))
            .args(["--exact", test])
            .env(CHILD, "1")
            .output()
            .expect("it runs");
        assert_eq!(ended.status.code(), Some(EXIT_PANIC));
    }
}
