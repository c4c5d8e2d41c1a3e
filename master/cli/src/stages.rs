//! A stage that is named where the master takes a number: `logs --stage flaky`, `apply --from server`. The master's record of
//! the instances says which number that is.

use std::collections::BTreeMap;

use aot_proto::v1::{InstanceView, StatusRequest};

use super::Ctx;
use super::args::{MaybeTarget, StageArg};
use super::dial::{Client, QUERY, within};
use super::error::Error;
use crate::view::ranges;

/// The number of a stage of these instances.
///
/// # Errors
/// When no stage of theirs has this name, or several have it, or the master can't be asked.
pub(crate) async fn number(
    ctx: &Ctx<'_>,
    client: &mut Client,
    which: &MaybeTarget,
    stage: Option<StageArg>,
) -> Result<Option<u32>, Error> {
    let name = match stage {
        None => return Ok(None),
        Some(StageArg::Number(number)) => return Ok(Some(number)),
        Some(StageArg::Name(name)) => name,
    };
    let request = StatusRequest {
        cluster: ctx.cluster.clone(),
        target: which.target.clone(),
        exclude: which.narrow.exclude(),
        limit: which.narrow.limit(),
        ..StatusRequest::default()
    };
    let reply = client.status(within(QUERY, request)).await?.into_inner();
    number_of(&reply.instances, &name).map(Some)
}

/// Instances by the number and the name of their stages.
fn stages(views: &[InstanceView]) -> BTreeMap<(u32, &str), Vec<&str>> {
    let mut found: BTreeMap<(u32, &str), Vec<&str>> = BTreeMap::new();
    for view in views {
        for stage in &view.stage_views {
            let key = (stage.index, stage.name.as_str());
            found.entry(key).or_default().push(&view.name);
        }
    }
    found
}

fn number_of(views: &[InstanceView], wanted: &str) -> Result<u32, Error> {
    let all = stages(views);
    let named: Vec<_> = all
        .iter()
        .filter(|((_, name), _)| *name == wanted)
        .collect();
    match named[..] {
        [((number, _), _)] => Ok(*number),
        [] => {
            let list: Vec<String> = all
                .keys()
                .map(|(number, name)| format!("{name} ({number})"))
                .collect();
            let hint = match list.len() {
                0 => "there are no stages".to_owned(),
                _ => format!("the stages are {}", list.join(", ")),
            };
            Err(Error::usage(format!("no stage is named {wanted:?}"), hint))
        }
        _ => {
            let places: Vec<String> = named
                .iter()
                .map(|((number, _), names)| {
                    format!("{number} of {}", ranges(names.iter().copied()))
                })
                .collect();
            Err(Error::usage(
                format!("{wanted:?} is more than one stage: {}", places.join(", ")),
                "give the number, or a TARGET that has only one of them",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Style;
    use aot_proto::v1::StageView;

    fn view(name: &str, stages: &[&str]) -> InstanceView {
        let stage = |(index, name): (usize, &&str)| StageView {
            index: u32::try_from(index).expect("few"),
            name: (*name).to_owned(),
            ..StageView::default()
        };
        InstanceView {
            name: name.to_owned(),
            stage_views: stages.iter().enumerate().map(stage).collect(),
            ..InstanceView::default()
        }
    }

    #[test]
    fn a_name_is_the_number_that_the_instances_have_it_at() {
        let web = ["web1", "web2"].map(|name| view(name, &["base", "flaky"]));
        assert_eq!(number_of(&web, "flaky").ok(), Some(1));
        let said = |views: &[InstanceView], name: &str| {
            let error = number_of(views, name).expect_err(name);
            error.report(Style::default()).expect("it is not well")
        };
        assert_eq!(
            said(&web, "falky"),
            "error: no stage is named \"falky\"\n  hint: the stages are base (0), flaky (1)"
        );
        assert_eq!(
            said(&[view("db1", &[])], "x"),
            "error: no stage is named \"x\"\n  hint: there are no stages"
        );
        let mixed = [&web[..], &[view("db1", &["flaky"])]].concat();
        assert_eq!(
            said(&mixed, "flaky"),
            "error: \"flaky\" is more than one stage: 0 of db1, 1 of web[1-2]\n  hint: give the number, or a TARGET that \
             has only one of them"
        );
    }
}
