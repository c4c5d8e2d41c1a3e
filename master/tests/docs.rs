//! Keeps the documentation true: the table of keys is that of the schema, links lead somewhere, and no variable or command
//! is left out. Asks the program itself, as its readers do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

/// Set to 1, the table of keys is written instead of compared.
const WRITE: &str = "AOT_WRITE_DOCS";
/// What stands before the table of keys, and behind it.
const FROM: &str = "<!-- keys: made from `aot-master schema`, kept by master/tests/docs.rs -->";
const TO: &str = "<!-- end of keys -->";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the program prints.
fn aot_master(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_aot-master"))
        .args(args)
        .output()
        .expect("the program runs");
    assert!(
        output.status.success(),
        "aot-master {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}

/// All files of the repository whose name ends so, with their path in it. What is built or hidden is left out.
fn files(ending: &str) -> Vec<(String, PathBuf)> {
    fn walk(dir: &Path, inside: &str, ending: &str, found: &mut Vec<(String, PathBuf)>) {
        for entry in fs::read_dir(dir).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_built = name == "target" && !inside.contains("/src");
            if name.starts_with('.') || is_built {
                continue;
            }
            let inside = match inside {
                "" => name,
                inside => format!("{inside}/{name}"),
            };
            let kind = entry.file_type().expect("its kind");
            if kind.is_dir() {
                walk(&entry.path(), &inside, ending, found);
            } else if kind.is_file() && inside.ends_with(ending) {
                found.push((inside, entry.path()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), "", ending, &mut found);
    found.sort();
    found
}

/// The pages for users: README.md and docs/.
fn pages() -> Vec<(String, String)> {
    let is_page = |inside: &str| inside == "README.md" || inside.starts_with("docs/");
    let all = files(".md").into_iter();
    let pages: Vec<_> = all
        .filter(|(inside, _)| is_page(inside))
        .map(|(inside, path)| (inside, read(&path)))
        .collect();
    assert!(pages.len() > 10, "the pages were not found");
    pages
}

// ---- The examples.

#[test]
fn every_example_is_well_and_on_the_page_of_the_file() {
    let page = read(&root().join("docs/cluster-file.md"));
    let mut examples = files("/cluster.yml");
    examples.retain(|(inside, _)| inside.starts_with("examples/"));
    assert!(examples.len() > 4, "the examples were not found");
    for (inside, path) in examples {
        aot_master(&["check", &path.display().to_string()]);
        let name = inside.split('/').nth(1).unwrap_or_default();
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

// ---- The keys of cluster.yml.

/// One key, with its other names.
struct Row<'s> {
    name: &'s str,
    others: Vec<&'s str>,
    schema: &'s Value,
}

/// The keys of a mapping in their order. Names that mean the same stand one after the other, the name to use last.
fn rows(of: &Value) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for (name, schema) in of["properties"].as_object().into_iter().flatten() {
        match rows.last_mut() {
            Some(row) if row.schema == schema => {
                let other = std::mem::replace(&mut row.name, name.as_str());
                row.others.push(other);
            }
            _ => rows.push(Row {
                name: name.as_str(),
                others: Vec::new(),
                schema,
            }),
        }
    }
    rows
}

/// The keys that a mapping must have, under any of their names.
fn required(of: &Value) -> BTreeSet<&str> {
    let alternatives = of["allOf"].as_array().into_iter().flatten();
    let alternatives = alternatives.flat_map(|all| all["anyOf"].as_array().into_iter().flatten());
    std::iter::once(of)
        .chain(alternatives)
        .flat_map(|schema| schema["required"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect()
}

/// The name of the definition that a schema stands for.
fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/$defs/")
}

/// The definition that a key holds, and what is added to the key's path to get there.
fn holds(schema: &Value) -> Option<(&str, &'static str)> {
    if let Some(name) = reference(schema) {
        return Some((name, ""));
    }
    if let Some(name) = reference(&schema["items"]) {
        return Some((name, "[]"));
    }
    if let Some(name) = reference(&schema["additionalProperties"]) {
        return Some((name, ".NAME"));
    }
    options(schema)?.iter().find_map(holds)
}

/// A definition on the page: its heading, and the places where it may stand.
struct Shown<'s> {
    name: &'s str,
    heading: String,
    places: Vec<String>,
}

/// All definitions that the file's keys lead to, nearest first.
fn shown(schema: &Value) -> Vec<Shown<'_>> {
    let mut all = vec![Shown {
        name: "",
        heading: String::new(),
        places: vec![String::new()],
    }];
    let mut queue = VecDeque::from([0]);
    while let Some(at) = queue.pop_front() {
        for row in rows(definition(schema, all[at].name)) {
            let Some((name, more)) = holds(row.schema) else {
                continue;
            };
            let heading = format!("{}{more}", row.name);
            let paths: Vec<String> = all[at]
                .places
                .iter()
                .map(|place| path(place, &heading))
                .collect();
            let known = all.iter().position(|shown| shown.name == name);
            let index = known.unwrap_or_else(|| {
                all.push(Shown {
                    name,
                    heading,
                    places: Vec::new(),
                });
                queue.push_back(all.len() - 1);
                all.len() - 1
            });
            all[index].places.extend(paths);
        }
    }
    all
}

fn definition<'s>(schema: &'s Value, name: &str) -> &'s Value {
    match name {
        "" => schema,
        name => &schema["$defs"][name],
    }
}

fn path(place: &str, key: &str) -> String {
    match place {
        "" => key.to_owned(),
        place => format!("{place}.{key}"),
    }
}

const TRUE_OR_FALSE: &str = "true or false";

/// What a value must be, in words; definitions are linked.
fn kind(schema: &Value, headings: &BTreeMap<&str, &str>) -> String {
    if let Some(name) = reference(schema) {
        let heading = headings.get(name).copied().unwrap_or(name);
        return format!("[`{heading}`](#{})", slug(heading));
    }
    let joined = |values: &[Value], one: &dyn Fn(&Value) -> String| {
        any_of(&values.iter().map(one).collect::<Vec<_>>())
    };
    if let Some(values) = schema["enum"].as_array() {
        return joined(values, &literal);
    }
    if let Some(value) = schema.get("const") {
        return literal(value);
    }
    if let Some(options) = options(schema) {
        // Of two lists, one inside the other, nobody could say where the inner one ends.
        if let [one, list] = options.as_slice()
            && self::options(one).is_some()
            && list["items"] == *one
        {
            let inner = self::options(one).into_iter().flatten();
            let mut words: Vec<String> = inner.map(|it| kind(it, headings)).collect();
            words.push("list of these".to_owned());
            return any_of(&words);
        }
        return joined(options, &|option| kind(option, headings));
    }
    match &schema["type"] {
        Value::Array(types) => joined(types, &|of| named(of, schema, headings)),
        of => named(of, schema, headings),
    }
}

/// What a schema leaves the choice of.
fn options(schema: &Value) -> Option<&Vec<Value>> {
    schema["anyOf"].as_array().or(schema["oneOf"].as_array())
}

/// `text, number or list`.
fn any_of(words: &[String]) -> String {
    match words.split_last() {
        Some((last, [])) => last.clone(),
        // It has its `or` already.
        Some((last, first)) if last == TRUE_OR_FALSE => format!("{}, {last}", first.join(", ")),
        Some((last, first)) => format!("{} or {last}", first.join(", ")),
        None => "anything".to_owned(),
    }
}

/// Whether any single value will do: text, a number, true or false.
fn is_any_single(schema: &Value) -> bool {
    let types = schema["type"].as_array();
    types.is_some_and(|types| {
        ["string", "number", "boolean"]
            .iter()
            .all(|it| types.contains(&Value::from(*it)))
    })
}

fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

fn named(of: &Value, schema: &Value, headings: &BTreeMap<&str, &str>) -> String {
    match of.as_str().unwrap_or("anything") {
        "string" => "text".to_owned(),
        "integer" => "whole number".to_owned(),
        "boolean" => TRUE_OR_FALSE.to_owned(),
        "null" => "nothing".to_owned(),
        "array" if is_any_single(&schema["items"]) => "list".to_owned(),
        "array" => format!("list of {}", kind(&schema["items"], headings)),
        "object" if schema["additionalProperties"].is_object() => {
            let value = kind(&schema["additionalProperties"], headings);
            format!("mapping of names to {value}")
        }
        "object" => "mapping".to_owned(),
        other => other.to_owned(),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Whether all keys of `part` are keys of `whole`, which has more.
fn is_part(part: &Value, whole: &Value) -> bool {
    let keys = |of: &Value| of["properties"].as_object().map_or(0, Map::len);
    let mut all = part["properties"].as_object().into_iter().flatten();
    keys(part) > 1
        && keys(part) < keys(whole)
        && all.all(|(name, schema)| whole["properties"].get(name) == Some(schema))
}

/// Without the text with a variable that any value may be: the page says so once.
fn without_variables(schema: &mut Value) {
    for name in ["Variable", "YesNo"] {
        if let Some(options) = schema["anyOf"].as_array().filter(|any| any.len() == 2)
            && options[1]["$ref"] == format!("#/$defs/{name}")
        {
            let mut plain = options[0].clone();
            if let Some(about) = schema.get("description") {
                plain["description"] = about.clone();
            }
            *schema = plain;
        }
    }
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_variables),
        Value::Object(entries) => entries.values_mut().for_each(without_variables),
        _ => {}
    }
}

/// The table of all keys, a section for each mapping.
fn keys(schema: &Value) -> String {
    let shown = shown(schema);
    let headings: BTreeMap<&str, &str> = shown
        .iter()
        .map(|one| (one.name, one.heading.as_str()))
        .collect();
    let mut sections = Vec::new();
    for one in &shown {
        let of = definition(schema, one.name);
        let part = shown
            .iter()
            .find(|other| !other.name.is_empty() && is_part(definition(schema, other.name), of));
        let part_of = part.map(|part| definition(schema, part.name));
        let is_new =
            |row: &Row<'_>| part_of.is_none_or(|part| part["properties"].get(row.name).is_none());
        let mut text = match one.name {
            "" => "### Top of the file\n\n".to_owned(),
            _ => format!("### `{}`\n\n", one.heading),
        };
        let about = of["description"].as_str().unwrap_or_default();
        text.push_str(about);
        if one.places != [one.heading.as_str()] {
            let places: Vec<String> = one.places.iter().map(|at| format!("`{at}`")).collect();
            text.push_str(&format!(" Place: {}.", places.join(", ")));
        }
        if let Some(part) = part {
            text.push_str(&format!(
                " Takes all keys of [`{0}`](#{1}) and these:",
                part.heading,
                slug(&part.heading)
            ));
        }
        text.push_str("\n\n");
        text.push_str(&table(of, &one.heading, &is_new, &headings));
        sections.push(text);
    }
    sections.join("\n")
}

fn table(
    of: &Value,
    place: &str,
    is_new: &dyn Fn(&Row<'_>) -> bool,
    headings: &BTreeMap<&str, &str>,
) -> String {
    let rows: Vec<Row<'_>> = rows(of).into_iter().filter(|row| is_new(row)).collect();
    let must = required(of);
    let defaults = rows.iter().any(|row| row.schema.get("default").is_some());
    let mut text = match defaults {
        true => "| key | type | default | meaning |\n|---|---|---|---|\n".to_owned(),
        false => "| key | type | meaning |\n|---|---|---|\n".to_owned(),
    };
    for row in &rows {
        let mut key = format!("`{}`", path(place, row.name));
        if must.contains(row.name) {
            key.push_str(" (required)");
        }
        if !row.others.is_empty() {
            let others: Vec<String> = row.others.iter().map(|name| format!("`{name}`")).collect();
            key.push_str(&format!(" (also {})", others.join(", ")));
        }
        let mut cells = vec![key, kind(row.schema, headings)];
        if defaults {
            cells.push(row.schema.get("default").map(literal).unwrap_or_default());
        }
        let about = row.schema["description"].as_str().unwrap_or_default();
        cells.push(about.to_owned());
        let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

#[test]
fn what_a_value_must_be_reads_in_one_way() {
    let single = json!({"type": ["string", "number", "boolean"]});
    let text = json!({"type": "string"});
    let list = |items: &Value| json!({"type": "array", "items": items});
    let either = json!({"anyOf": [text, {"$ref": "#/$defs/Use"}]});
    let headings = BTreeMap::from([("Use", "uses")]);
    for (schema, wanted) in [
        (single.clone(), "text, number, true or false"),
        (list(&single), "list"),
        (list(&text), "list of text"),
        (json!({"anyOf": [text, list(&single)]}), "text or list"),
        (
            json!({"anyOf": [text, list(&text)]}),
            "text or list of text",
        ),
        (
            json!({"anyOf": [either, list(&either)]}),
            "text, [`uses`](#uses) or list of these",
        ),
        (
            json!({"type": "object", "additionalProperties": single}),
            "mapping of names to text, number, true or false",
        ),
        (
            json!({"type": ["boolean", "string"]}),
            "true or false or text",
        ),
    ] {
        assert_eq!(kind(&schema, &headings), wanted, "{schema}");
    }
}

#[test]
fn the_table_of_keys_is_that_of_the_schema() {
    let mut schema: Value = serde_json::from_str(&aot_master(&["schema"])).expect("JSON");
    without_variables(&mut schema);
    let page = root().join("docs/cluster-file.md");
    let text = read(&page);
    let (before, rest) = text.split_once(FROM).expect("the table's beginning");
    let (_, after) = rest.split_once(TO).expect("the table's end");
    let wanted = format!("{before}{FROM}\n\n{}\n{TO}{after}", keys(&schema));
    if text == wanted {
        return;
    }
    if std::env::var_os(WRITE).is_some_and(|value| value == "1") {
        fs::write(&page, wanted).expect("the page is written");
        return;
    }
    let differs = text
        .lines()
        .zip(wanted.lines())
        .find(|(is, to_be)| is != to_be);
    panic!(
        "docs/cluster-file.md does not say what `aot-master schema` says; renew it with\n  \
         {WRITE}=1 cargo test -p aot-master --test docs\nfirst line that differs: {differs:?}"
    );
}

// ---- Links.

/// The anchor that GitHub gives a heading.
fn slug(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// The lines of a Markdown text that are not in a fenced block, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut fence: Option<&str> = None;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let start = line.trim_start();
        let mark = ["```", "~~~"]
            .into_iter()
            .find(|mark| start.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) => lines.push((at + 1, line)),
            _ => {}
        }
    }
    lines
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for (_, line) in prose(text) {
        let heading = line.trim_start_matches('#');
        let level = line.len() - heading.len();
        if !(1..=6).contains(&level) || !heading.starts_with(' ') {
            continue;
        }
        let slug = slug(heading);
        let count = seen.entry(slug.clone()).or_default();
        found.insert(match *count {
            0 => slug,
            more => format!("{slug}-{more}"),
        });
        *count += 1;
    }
    found
}

/// Where the links of a line lead. What stands in backquotes is left out.
fn links(line: &str) -> Vec<String> {
    let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join("x");
    let mut found = Vec::new();
    for rest in outside.split("](").skip(1) {
        if let Some((target, _)) = rest.split_once(')') {
            let target = target.split(' ').next().unwrap_or_default();
            found.push(target.to_owned());
        }
    }
    found
}

#[test]
fn no_link_is_dead() {
    let mut dead = Vec::new();
    let mut looked = 0;
    for (inside, file) in files(".md") {
        let text = read(&file);
        for (number, line) in prose(&text) {
            for link in links(line) {
                if link.contains("://") || link.starts_with("mailto:") {
                    continue;
                }
                looked += 1;
                let (to, anchor) = link.split_once('#').unwrap_or((&link, ""));
                let target = match to {
                    "" => file.clone(),
                    to => file.parent().expect("a folder").join(to),
                };
                let is_there = target.exists() && !to.starts_with('/');
                let is_page = target.extension().is_some_and(|ending| ending == "md");
                let has_anchor = anchor.is_empty()
                    || is_page && is_there && anchors(&read(&target)).contains(anchor);
                if !is_there || !has_anchor {
                    dead.push(format!("{inside}:{number}: {link}"));
                }
            }
        }
    }
    assert!(looked > 50, "the links were not found: {looked}");
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn every_page_is_in_the_index() {
    let index = read(&root().join("docs/README.md"));
    let missing: Vec<String> = files(".md")
        .into_iter()
        .filter_map(|(inside, _)| Some(inside.strip_prefix("docs/")?.to_owned()))
        .filter(|page| page != "README.md" && !index.contains(&format!("]({page}")))
        .collect();
    assert!(missing.is_empty(), "docs/README.md lacks {missing:?}");
}

#[test]
fn the_readme_stays_short() {
    let text = read(&root().join("README.md"));
    let lines = text.lines().count();
    assert!(
        lines <= 150,
        "README.md has {lines} lines: move some to docs/"
    );
    for (at, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        assert!(columns <= 120, "README.md:{}: {columns} columns", at + 1);
    }
}

// ---- Variables and commands.

/// Names after `before` that are followed by one of `after`.
fn names(text: &str, before: &str, after: &[char]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in text.split(before).skip(1) {
        let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if end > 0 && rest[end..].starts_with(after) {
            found.insert(format!("AOT_{}", &rest[..end]));
        }
    }
    found
}

#[test]
fn every_variable_is_among_the_settings() {
    let page = read(&root().join("docs/settings.md"));
    let mut all = BTreeMap::new();
    for (inside, file) in files(".rs") {
        let is_test =
            inside.split('/').skip(1).any(|part| part == "tests") || inside.ends_with("tests.rs");
        if !is_test {
            for name in names(&read(&file), "\"AOT_", &['"']) {
                all.insert(name, inside.clone());
            }
        }
    }
    for (inside, file) in files(".sh") {
        for name in names(&read(&file), "${AOT_", &['-', ':', '}']) {
            all.insert(name, inside.clone());
        }
    }
    assert!(all.len() > 15, "the variables were not found: {all:?}");
    all.remove("AOT_END"); // the end of a text in boot.sh
    all.remove("AOT_COMMIT"); // set by the build scripts of the two programs, read by the compiler
    all.retain(|name, _| !page.contains(&format!("`{name}`")));
    assert!(all.is_empty(), "docs/settings.md lacks {all:#?}");
}

/// The commands that a help text lists before its options, below headings: two blanks, the name, blanks, what it does.
fn commands(help: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_list = false;
    for line in help.lines().take_while(|line| !line.starts_with("Options")) {
        match line.strip_prefix("  ") {
            None => is_list = line.ends_with(':') || is_list && line.is_empty(),
            Some(rest) if is_list && rest.starts_with(|c: char| c.is_ascii_lowercase()) => {
                found.extend(rest.split_whitespace().next().map(str::to_owned));
            }
            Some(_) => {}
        }
    }
    found
}

#[test]
fn every_command_is_on_a_page() {
    let pages = pages();
    let is_named = |words: &str| {
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-');
        pages.iter().any(|(_, text)| {
            [format!("aot-master {words}"), format!("`{words}")]
                .iter()
                .any(|form| text.split(form.as_str()).skip(1).any(ends))
        })
    };
    let all = commands(&aot_master(&["--help"]));
    assert!(all.len() > 25, "the commands were not found: {all:?}");
    let mut missing: Vec<String> = Vec::new();
    for name in all {
        let below = commands(&aot_master(&[&name, "--help"]));
        let below = below.into_iter().filter(|word| word != "help");
        let mut wanted: Vec<String> = below.map(|word| format!("{name} {word}")).collect();
        wanted.push(name);
        missing.extend(wanted.into_iter().filter(|words| !is_named(words)));
    }
    assert!(missing.is_empty(), "no page names {missing:?}");
}

// ---- Messages.

/// The messages of a page: what stands in backquotes at the beginning of a row of a table headed "message".
fn messages(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut is_table = false;
    for (number, line) in prose(text) {
        is_table = line.starts_with("| message |") || is_table && line.starts_with('|');
        if is_table
            && let Some(rest) = line.strip_prefix("| `")
            && let Some((message, _)) = rest.split_once('`')
        {
            found.push((number, message));
        }
    }
    found
}

/// The sources of the programs without their tests; a text over several lines is put together.
fn sources() -> String {
    let all = files(".rs").into_iter().chain(files(".sh"));
    let texts = all
        .filter(|(inside, _)| !inside.split('/').any(|part| part == "tests"))
        .filter(|(inside, _)| !inside.ends_with("tests.rs"))
        .map(|(_, path)| read(&path));
    let whole: String = texts.collect::<Vec<_>>().join("\n");
    let mut joined = String::with_capacity(whole.len());
    for (at, part) in whole.split("\\\n").enumerate() {
        joined.push_str(if at == 0 { part } else { part.trim_start() });
    }
    joined.replace("{SCRIPT}", "bootstrap.sh")
}

#[test]
fn each_message_is_one_that_the_programs_print() {
    let page = read(&root().join("docs/troubleshooting.md"));
    let sources = sources();
    let found = messages(&page);
    assert!(found.len() > 100, "the messages were not found");
    let wrong: Vec<String> = found
        .into_iter()
        .filter(|(_, message)| {
            let parts = message
                .split("...")
                .map(|part| part.trim_matches([' ', ',']));
            !parts
                .filter(|part| !part.is_empty())
                .all(|part| sources.contains(part))
        })
        .map(|(number, message)| format!("docs/troubleshooting.md:{number}: {message}"))
        .collect();
    assert!(wrong.is_empty(), "nothing prints {wrong:#?}");
}
