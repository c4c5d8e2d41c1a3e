//! Parts that the master can't be without. A panic ends only the task or thread that it happens in: without such a part the
//! process would live on and serve nobody, and nothing would start it again.

use std::process;
use std::task::Poll;

/// Exit status after a panic of such a part (sysexits.h, EX_SOFTWARE). What the parts know is on disk: a service manager
/// starts the master again.
pub const EXIT_PANIC: i32 = 70;

/// The work of a part that is a task; the process ends when it panics. The name is for the log.
///
/// A task that is only given up is none of it, also when that is since another panics: the end of a test's runtime.
pub fn vital<F: Future>(part: &'static str, work: F) -> impl Future<Output = F::Output> {
    let mut work = Box::pin(work);
    std::future::poll_fn(move |context| -> Poll<F::Output> {
        let _vital = Vital(part);
        work.as_mut().poll(context)
    })
}

/// The work of a part that is a thread, as [`vital`].
pub fn vital_thread<T>(part: &'static str, work: impl FnOnce() -> T) -> T {
    let _vital = Vital(part);
    work()
}

/// On the stack of what is watched, so it is dropped by a panic of that alone.
struct Vital(&'static str);

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

    /// Says to this test, run in a process of its own, what is to panic.
    const CHILD: &str = "AOT_TEST_PANICS";

    #[test]
    fn a_panic_of_a_vital_task_or_thread_ends_the_process() {
        let Some(which) = std::env::var_os(CHILD) else {
            assert_eq!(ended("task"), Some(EXIT_PANIC));
            assert_eq!(ended("thread"), Some(EXIT_PANIC));
            return;
        };
        if which == "thread" {
            let thread = std::thread::spawn(|| vital_thread("test", || panic!("as a fault would")));
            let _: std::thread::Result<()> = thread.join(); // it ends with the process
        } else {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("a runtime").block_on(async {
                let task = tokio::spawn(vital("test", async { panic!("as a fault would") }));
                let _: Result<(), _> = task.await; // it ends with the process
            });
        }
        process::exit(0);
    }

    /// How a process ends that runs that test, and in it such a part.
    fn ended(part: &str) -> Option<i32> {
        let test = "fatal::tests::a_panic_of_a_vital_task_or_thread_ends_the_process";
        let output = process::Command::new(std::env::current_exe().expect("its own path"))
            .args(["--exact", test])
            .env(CHILD, part)
            .output()
            .expect("it runs");
        output.status.code()
    }

    /// How a test ends that does not hold: with its own message, and the others go on.
    #[test]
    fn a_vital_task_that_is_given_up_by_a_panic_of_another_ends_nothing() {
        let panicked = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("a runtime").block_on(async {
                tokio::spawn(vital("test", std::future::pending::<()>()));
                tokio::task::yield_now().await;
                panic!("as a test would");
            });
        });
        assert!(panicked.join().is_err());
    }
}
