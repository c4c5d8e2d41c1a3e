use super::*;
use crate::samples::machine as sample;

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

const NOW: u64 = 2_000_000_000;

fn id(text: &str) -> MachineId {
    text.parse().expect("a good id")
}

fn document() -> Document {
    Document {
        account: "123456789012".to_owned(),
        region: "eu-west-1".to_owned(),
        machine: id("i-0001"),
        pending: time(NOW - 90),
    }
}

fn machine() -> Machine {
    Machine {
        account: Some("123456789012".to_owned()),
        state: MachineState::Running,
        launched_at: Some(time(NOW - 92)),
        ..sample("web1", 1)
    }
}

fn verdict(shown: &ShownDocument, machine: &Machine) -> Result<(), Flaw> {
    let found = judge(shown, "eu-west-1", &machine.id, time(NOW))?;
    compare(found, machine)
}

fn demanded(
    attestation: Attestation,
    certificate: bool,
    machines: usize,
    change: impl FnOnce(&mut ClusterSpec),
) -> Result<Proof, Unprovable> {
    let mut spec = crate::samples::cluster().spec;
    spec.attestation = attestation;
    change(&mut spec);
    let known = Circumstances {
        region: "eu-west-1",
        certificate,
        machines,
    };
    demand(&spec, known)
}

#[test]
fn what_each_setting_comes_to() {
    use Attestation::{Auto, Both, Challenge, Document, Token};
    let of = |wanted, certificate, machines| demanded(wanted, certificate, machines, |_| {}).ok();
    for machines in [0, 1, MAX_AUTO_CHALLENGES, MAX_AUTO_CHALLENGES + 1] {
        assert_eq!(of(Auto, true, machines), Some(Proof::Document));
        assert_eq!(of(Document, true, machines), Some(Proof::Document));
        assert_eq!(of(Both, true, machines), Some(Proof::Both));
        for certificate in [true, false] {
            assert_eq!(of(Challenge, certificate, machines), Some(Proof::Challenge));
            assert_eq!(of(Token, certificate, machines), Some(Proof::Token));
        }
        assert_eq!(of(Document, false, machines), None);
        assert_eq!(of(Both, false, machines), None);
    }
    assert_eq!(of(Auto, false, MAX_AUTO_CHALLENGES), Some(Proof::Challenge));
    assert_eq!(of(Auto, false, MAX_AUTO_CHALLENGES + 1), Some(Proof::Token));
    for wanted in [Auto, Document, Challenge, Both, Token] {
        let local = demanded(wanted, true, 1, |spec| spec.provider = ProviderKind::Local);
        assert_eq!(local, Ok(Proof::Token), "a clone has nothing else");
    }
}

#[test]
fn tags_that_ec2_would_not_show_rule_the_challenge_out() {
    use Attestation::{Auto, Both, Challenge, Document};
    for key in ["cost center", "team/web", "_index", "..", "größe"] {
        let with = |wanted, certificate| {
            demanded(wanted, certificate, 1, |spec| {
                let tags = &mut spec.pools[1].machine.tags;
                tags.insert(key.to_owned(), "x".to_owned());
            })
        };
        assert_eq!(with(Auto, true), Ok(Proof::Document), "{key}");
        assert_eq!(with(Auto, false), Ok(Proof::Token), "{key}");
        assert_eq!(with(Document, true), Ok(Proof::Document), "{key}");
        for wanted in [Challenge, Both] {
            let refused = with(wanted, true).expect_err("its tag could not be read");
            assert!(
                refused.to_string().contains(&format!("{key:?}")),
                "{refused}"
            );
        }
    }
    let good = demanded(Challenge, false, 1, |spec| {
        let tags = &mut spec.pools[0].machine.tags;
        tags.insert("a+b-c=d.e,f_g:h@i".to_owned(), "x y/z".to_owned());
    });
    assert_eq!(good, Ok(Proof::Challenge));
}

#[test]
fn a_missing_certificate_names_the_command_that_brings_it() {
    let refused = demanded(Attestation::Both, false, 1, |_| {});
    let refused = refused.expect_err("there is no certificate");
    assert!(refused.to_string().contains("eu-west-1"), "{refused}");
    assert!(
        refused
            .hint()
            .contains("aot-master attestation import eu-west-1.pem")
    );
}

#[test]
fn only_a_token_alone_on_ec2_is_warned_of() {
    assert!(warning(ProviderKind::Ec2, Proof::Token, "r").is_some());
    assert_eq!(warning(ProviderKind::Local, Proof::Token, "r"), None);
    for proof in [Proof::Document, Proof::Challenge, Proof::Both] {
        assert_eq!(warning(ProviderKind::Ec2, proof, "r"), None);
    }
}

#[test]
fn a_document_is_good_for_the_machine_that_it_names_alone() {
    let good = ShownDocument::Signed(document());
    assert_eq!(verdict(&good, &machine()), Ok(()));
    let other = |change: fn(&mut Document)| {
        let mut changed = document();
        change(&mut changed);
        verdict(&ShownDocument::Signed(changed), &machine())
    };
    assert_eq!(
        verdict(&ShownDocument::Nothing, &machine()),
        Err(Flaw::Missing)
    );
    let bad = ShownDocument::Bad("forged".to_owned());
    assert_eq!(
        verdict(&bad, &machine()),
        Err(Flaw::Bad("forged".to_owned()))
    );
    assert_eq!(
        other(|it| it.region = "eu-west-2".to_owned()),
        Err(Flaw::OtherRegion("eu-west-2".to_owned()))
    );
    assert_eq!(
        other(|it| it.machine = id("i-2")),
        Err(Flaw::OtherMachine(id("i-2")))
    );
    assert_eq!(
        other(|it| it.account = "210987654321".to_owned()),
        Err(Flaw::OtherAccount("210987654321".to_owned()))
    );
    let unknown = Machine {
        account: None,
        ..machine()
    };
    assert!(matches!(
        verdict(&good, &unknown),
        Err(Flaw::OtherAccount(_))
    ));
}

#[test]
fn the_machine_must_run() {
    use MachineState::{Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
    for state in [
        Pending,
        Running,
        Stopping,
        Stopped,
        ShuttingDown,
        Terminated,
    ] {
        let machine = Machine { state, ..machine() };
        let wanted = match state {
            Pending | Running => Ok(()),
            _ => Err(Flaw::NotRunning(state)),
        };
        assert_eq!(
            verdict(&ShownDocument::Signed(document()), &machine),
            wanted
        );
    }
}

#[test]
fn the_times_must_be_of_one_start() {
    let at = |pending: u64, launched: Option<u64>| {
        let shown = ShownDocument::Signed(Document {
            pending: time(pending),
            ..document()
        });
        let machine = Machine {
            launched_at: launched.map(time),
            ..machine()
        };
        verdict(&shown, &machine)
    };
    let grace = LAUNCH_GRACE.as_secs();
    assert_eq!(at(NOW + 60, Some(NOW)), Ok(()));
    assert_eq!(at(NOW + 61, Some(NOW)), Err(Flaw::Future));
    assert_eq!(at(NOW - grace, Some(NOW)), Ok(()));
    assert_eq!(at(NOW - grace - 1, Some(NOW)), Err(Flaw::OtherStart));
    assert_eq!(at(NOW, Some(NOW - grace)), Ok(()));
    assert_eq!(at(NOW, Some(NOW - grace - 1)), Err(Flaw::OtherStart));
    // Copied before a stop and a start, which change both times.
    assert_eq!(at(NOW - 86_400, Some(NOW - 5)), Err(Flaw::OtherStart));
    assert_eq!(
        at(NOW, None),
        Err(Flaw::OtherStart),
        "an unknown start is none"
    );
}
