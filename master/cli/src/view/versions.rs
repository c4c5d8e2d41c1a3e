//! Which instances of a pool have which version of a bundle, where they differ. Pure.

use std::collections::BTreeMap;

use aot_proto::v1::{InstanceView, PlanLine, StageState};

use super::ranges::ranges;

/// Characters of a hash that tell versions apart.
const SHORT: usize = 12;

/// A stage of a pool.
type StageOfPool<'a> = (&'a str, u32, &'a str);

/// `web, stage base: 3f2a9c1b4d5e on web[1-2], 9d8e7f6a5b4c on web[3-6]`, for each stage of a pool that not all have run from the
/// same bundle.
pub(crate) fn versions(views: &[InstanceView]) -> Vec<String> {
    let mut stages: BTreeMap<StageOfPool<'_>, Vec<(String, &str)>> = BTreeMap::new();
    for view in views.iter().filter(|view| !view.pool.is_empty()) {
        for stage in view
            .stage_views
            .iter()
            .filter(|it| !it.bundle_sha256.is_empty())
        {
            let how = match stage.state() {
                StageState::Succeeded => "",
                StageState::Failed => " (failed)",
                _ => " (not done)",
            };
            let version = format!("{}{how}", short(&stage.bundle_sha256));
            let key = (&*view.pool, stage.index, &*stage.name);
            stages.entry(key).or_default().push((version, &view.name));
        }
    }
    let differ = |all: &Vec<(String, &str)>| {
        let mut shas = all.iter().map(|(version, _)| version.split(' ').next());
        let first = shas.next();
        shas.any(|sha| Some(sha) != first)
    };
    let stages = stages.into_iter().filter(|(_, all)| differ(all));
    stages
        .map(|((pool, _, stage), all)| format!("{pool}, stage {stage}: {}", who(all)))
        .collect()
}

/// `web, stage base: 9d8e7f6a5b4c becomes 3f2a9c1b4d5e on web[3-6]`.
pub(crate) fn plan_versions(lines: &[PlanLine]) -> Vec<String> {
    let mut stages: BTreeMap<(&str, &str), Vec<(String, &str)>> = BTreeMap::new();
    for line in lines {
        if line.has.is_empty() || line.has == line.wants {
            continue;
        }
        let version = format!("{} becomes {}", short(&line.has), short(&line.wants));
        let key = (&*line.pool, &*line.stage);
        stages
            .entry(key)
            .or_default()
            .push((version, &line.instance));
    }
    let text = |((pool, stage), all): ((&str, &str), Vec<(String, &str)>)| match pool {
        "" => format!("stage {stage}: {}", who(all)),
        pool => format!("{pool}, stage {stage}: {}", who(all)),
    };
    stages.into_iter().map(text).collect()
}

/// Each version with those that have it, in the order of the first of them.
fn who(all: Vec<(String, &str)>) -> String {
    let mut versions: Vec<(String, Vec<&str>)> = Vec::new();
    for (version, name) in all {
        match versions.iter_mut().find(|(known, _)| *known == version) {
            Some((_, names)) => names.push(name),
            None => versions.push((version, vec![name])),
        }
    }
    let text = |(version, names): (String, Vec<&str>)| format!("{version} on {}", ranges(names));
    versions
        .into_iter()
        .map(text)
        .collect::<Vec<_>>()
        .join(", ")
}

fn short(sha256: &str) -> &str {
    sha256.get(..SHORT).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_proto::v1::StageView;

    fn view(name: &str, pool: &str, bundle: char, state: StageState) -> InstanceView {
        InstanceView {
            name: name.to_owned(),
            pool: pool.to_owned(),
            stage_views: vec![StageView {
                name: "base".to_owned(),
                bundle_sha256: bundle.to_string().repeat(64),
                state: state.into(),
                ..StageView::default()
            }],
            ..InstanceView::default()
        }
    }

    #[test]
    fn versions_are_told_where_a_pool_has_several() {
        let done = StageState::Succeeded;
        let same = [
            view("web1", "web", 'a', done),
            view("web2", "web", 'a', StageState::Failed),
        ];
        assert_eq!(versions(&same), Vec::<String>::new());
        let alone = [view("one", "", 'a', done), view("two", "", 'b', done)];
        assert_eq!(
            versions(&alone),
            Vec::<String>::new(),
            "those are different things"
        );
        let rolled = [
            view("web1", "web", 'b', done),
            view("web2", "web", 'b', StageState::Failed),
            view("web3", "web", 'a', done),
            view("web4", "web", 'a', done),
        ];
        assert_eq!(
            versions(&rolled),
            [
                "web, stage base: bbbbbbbbbbbb on web1, bbbbbbbbbbbb (failed) on web2, aaaaaaaaaaaa on web[3-4]"
            ]
        );
    }

    #[test]
    fn a_plan_says_what_becomes_of_what() {
        let line = |instance: &str, has: &str| PlanLine {
            instance: instance.to_owned(),
            pool: "web".to_owned(),
            stage: "base".to_owned(),
            has: has.to_owned(),
            wants: "c".repeat(64),
            ..PlanLine::default()
        };
        let (a, c) = ("a".repeat(64), "c".repeat(64));
        let lines = [
            line("web1", &a),
            line("web2", &a),
            line("web3", &c),
            line("web4", ""),
        ];
        assert_eq!(
            plan_versions(&lines),
            ["web, stage base: aaaaaaaaaaaa becomes cccccccccccc on web[1-2]"]
        );
    }
}
