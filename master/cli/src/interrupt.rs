//! Ctrl-C while a job is followed: asks a person whether to leave the job alone or to end it. Used by exec, jobs, cp, launch and
//! apply; shows nothing but its question.

use std::fs::File;
use std::future::pending;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::pin::Pin;
use std::time::Duration;

use aot_proto::v1::CancelJobRequest;
use futures::{Stream, StreamExt, stream};
use rustix::fs::OFlags;
use rustix::termios::{QueueSelector, tcflush};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use super::dial::{Client, OfJob, QUERY};
use super::error::Error;
use crate::view::Out;

/// What a person chooses after Ctrl-C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InterruptChoice {
    /// The job continues, and is no longer followed.
    Detach,
    /// The job ends, and is followed until then.
    Cancel,
}

type Presses = Pin<Box<dyn Stream<Item = ()>>>;
type Answers = Pin<Box<dyn Stream<Item = String>>>;

/// Ctrl-C, as often as it comes, and what a person answers.
pub(crate) struct Interrupt {
    presses: Presses,
    /// Where answers come from; `None` when nobody can be asked.
    ask: Option<Box<dyn FnMut() -> io::Result<Answers>>>,
    cancelled: bool,
}

impl Interrupt {
    /// Of this process. Only when `interactive` is anyone asked; else Ctrl-C detaches.
    pub(crate) fn of_process(interactive: bool) -> Self {
        let presses: Presses = match signal(SignalKind::interrupt()) {
            Ok(signal) => Box::pin(stream::unfold(signal, |mut signal| async {
                signal.recv().await.map(|()| ((), signal))
            })),
            // Without a handler the signal ends the process, as it does everywhere.
            Err(_) => Box::pin(stream::pending()),
        };
        Self {
            presses,
            ask: interactive.then(|| Box::new(typed) as Box<_>),
            cancelled: false,
        }
    }

    /// The next Ctrl-C. Cancel safe.
    pub(crate) async fn pressed(&mut self) {
        if self.presses.next().await.is_none() {
            pending().await
        }
    }

    /// What is to be done about it. A second Ctrl-C, one after [`InterruptChoice::Cancel`], and one where nobody can be asked all
    /// mean to detach. There is no deadline: a person thinks, and the second Ctrl-C is the way out.
    ///
    /// # Errors
    /// When the question can't be written.
    pub(crate) async fn choose(&mut self, stderr: &mut Out) -> io::Result<InterruptChoice> {
        let Some(ask) = self.ask.as_mut().filter(|_| !self.cancelled) else {
            return Ok(InterruptChoice::Detach);
        };
        let Ok(mut answers) = ask() else {
            return Ok(InterruptChoice::Detach); // the terminal is gone
        };
        loop {
            write!(stderr, "\ndetach (the job continues) or cancel it? [d/c] ")?;
            stderr.flush()?;
            let answer = tokio::select! {
                biased; // an answer that was typed counts, also when Ctrl-C comes at the same moment
                answer = answers.next() => answer,
                _ = self.presses.next() => None,
            };
            match answer.as_deref().map(str::trim) {
                None => {
                    writeln!(stderr)?;
                    return Ok(InterruptChoice::Detach);
                }
                Some("d" | "D" | "detach") => return Ok(InterruptChoice::Detach),
                Some("c" | "C" | "cancel") => {
                    self.cancelled = true;
                    return Ok(InterruptChoice::Cancel);
                }
                Some(_) => {}
            }
        }
    }

    /// What Ctrl-C comes to for a job that is followed: asks, and has it cancelled when that is wanted; then says what to
    /// tell the operator. A job without an id yet, or nobody to ask through, is left alone.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the job is to be left alone; when the question can't be written.
    pub(crate) async fn handle(
        &mut self,
        client: Option<&mut Client>,
        job: &str,
        goes_on: String,
        stderr: &mut Out,
    ) -> Result<String, Error> {
        let choice = match (&client, job.is_empty()) {
            (Some(_), false) => self.choose(stderr).await?,
            _ => InterruptChoice::Detach,
        };
        let Some(client) = client.filter(|_| choice == InterruptChoice::Cancel) else {
            return Err(Error::Interrupted { goes_on });
        };
        Ok(match cancel(client, job, None).await {
            Ok(()) => "cancelling; Ctrl-C once more detaches".to_owned(),
            Err(error) => format!("it could not be cancelled: {error}"),
        })
    }
}

/// Asks the master to end a job; who follows it sees how it ends. `grace` is the time between TERM and KILL.
///
/// # Errors
/// When the master does not take it.
pub(crate) async fn cancel(
    client: &mut Client,
    job: &str,
    grace: Option<Duration>,
) -> Result<(), Error> {
    let request = CancelJobRequest {
        job_id: job.to_owned(),
        grace_ms: grace.map_or(0, super::dial::millis),
    };
    let mut request = request.of_job();
    request.set_timeout(QUERY);
    let mut events = client.cancel_job(request).await?.into_inner();
    // The first event says that it was taken.
    events.message().await?;
    Ok(())
}

/// Lines that are typed on the terminal from now on.
fn typed() -> io::Result<Answers> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let flags = i32::try_from(flags).map_err(io::Error::other)?;
    let tty = File::options()
        .read(true)
        .custom_flags(flags)
        .open("/dev/tty")?;
    // What was typed before the question is not an answer to it.
    tcflush(&tty, QueueSelector::IFlush)?;
    // It is not a pipe, but epoll takes it as one: readable when a line was typed.
    Ok(lines_of(Receiver::from_file_unchecked(tty)?))
}

/// The lines of a file that does not block; a terminal gives one at a time.
fn lines_of(file: Receiver) -> Answers {
    Box::pin(stream::unfold(file, |mut file| async move {
        let mut line = [0; 256];
        match file.read(&mut line).await {
            Ok(0) | Err(_) => None,
            Ok(len) => Some((String::from_utf8_lossy(&line[..len]).into_owned(), file)),
        }
    }))
}

#[cfg(test)]
impl Interrupt {
    /// Presses at these times from now on, and these answers where somebody can be asked.
    pub(crate) fn scripted(presses_ms: &[u64], answers: Option<Vec<&'static str>>) -> Self {
        Self::scripted_from(std::future::ready(()), presses_ms, answers)
    }

    /// The same, with the times counted from when `begun` is.
    pub(crate) fn scripted_from(
        begun: impl Future<Output = ()> + Send + 'static,
        presses_ms: &[u64],
        answers: Option<Vec<&'static str>>,
    ) -> Self {
        let presses: Vec<Duration> = presses_ms
            .iter()
            .copied()
            .map(Duration::from_millis)
            .collect();
        let presses = stream::once(begun).flat_map(move |()| {
            let start = tokio::time::Instant::now();
            stream::iter(presses.clone()).then(move |at| tokio::time::sleep_until(start + at))
        });
        Self {
            presses: Box::pin(presses.chain(stream::pending())),
            ask: answers.map(|answers| {
                Box::new(move || {
                    let answers = answers.clone().into_iter().map(str::to_owned);
                    let answers: Answers = Box::pin(stream::iter(answers).chain(stream::pending()));
                    Ok(answers)
                }) as Box<_>
            }),
            cancelled: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Kept;

    async fn choose(
        presses_ms: &[u64],
        answers: Option<Vec<&'static str>>,
    ) -> (InterruptChoice, String) {
        let mut interrupt = Interrupt::scripted(presses_ms, answers);
        let shown = Kept::default();
        interrupt.pressed().await;
        let choice = interrupt.choose(&mut Out::new(shown.clone())).await;
        (choice.expect("written"), shown.text())
    }

    #[tokio::test(start_paused = true)]
    async fn a_person_is_asked_until_the_answer_is_one() {
        for (answers, want, questions) in [
            (vec!["d\n"], InterruptChoice::Detach, 1),
            (vec!["c\n"], InterruptChoice::Cancel, 1),
            (vec!["\n", "what?\n", " C \n"], InterruptChoice::Cancel, 3),
        ] {
            let (choice, shown) = choose(&[5], Some(answers)).await;
            assert_eq!((choice, shown.matches("[d/c]").count()), (want, questions));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_ctrl_c_detaches() {
        assert_eq!(
            choose(&[5, 10], Some(vec![])).await.0,
            InterruptChoice::Detach
        );
    }

    /// As they are for a process that has stood still since the question: both are there.
    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_also_when_another_ctrl_c_is_there() {
        for _ in 0..40 {
            let (choice, _) = choose(&[5, 5], Some(vec!["c"])).await;
            assert_eq!(choice, InterruptChoice::Cancel);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_terminal_nobody_is_asked() {
        assert_eq!(
            choose(&[5], None).await,
            (InterruptChoice::Detach, String::new())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_cancel_ctrl_c_only_detaches() {
        let mut interrupt = Interrupt::scripted(&[5, 10], Some(vec!["c"]));
        let shown = Kept::default();
        let mut out = Out::new(shown.clone());
        for want in [InterruptChoice::Cancel, InterruptChoice::Detach] {
            interrupt.pressed().await;
            assert_eq!(interrupt.choose(&mut out).await.expect("written"), want);
        }
        assert_eq!(shown.text().matches("[d/c]").count(), 1);
    }

    #[tokio::test]
    async fn what_is_typed_is_read_line_by_line() {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&controller).expect("granted");
        unlockpt(&controller).expect("unlocked");
        let name = ptsname(&controller, Vec::new()).expect("a name");
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let tty = File::options()
            .read(true)
            .write(true)
            .custom_flags(flags.bits().try_into().expect("small"))
            .open(name.to_str().expect("UTF-8"))
            .expect("opened");
        let mut lines = lines_of(Receiver::from_file_unchecked(tty).expect("registered"));
        for line in ["first\n", "second\n"] {
            rustix::io::write(&controller, line.as_bytes()).expect("typed");
            assert_eq!(lines.next().await.as_deref(), Some(line));
        }
        drop(controller);
        assert_eq!(lines.next().await, None);
    }
}
