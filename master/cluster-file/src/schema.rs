//! The JSON Schema knows the file before its variables are in their places: any value may be a text with one.

mod constraints;

use serde_json::{Value, json};

/// Name of the definition of such a text.
const VARIABLE: &str = "Variable";

/// Where the schema is known, for editors that keep several.
const ID: &str = "urn:aot:schema:cluster.yml";

/// Adds its name, and what it knows of values beyond their kind.
pub(crate) fn complete(schema: &mut Value) {
    schema["$id"] = ID.into();
    constraints::add(schema);
    admit_variables(schema);
}

/// Lets the value of every key also be a text with a variable, where it can't be just any text already.
fn admit_variables(schema: &mut Value) {
    admit_in(schema);
    let Some(definitions) = schema["$defs"].as_object_mut() else {
        return;
    };
    definitions.values_mut().for_each(admit_in);
    let variable = json!({
        "type": "string",
        "pattern": r"\$\{",
        "description": "A text with a variable, ${name}, which stands for a value of the right kind.",
    });
    definitions.insert(VARIABLE.to_owned(), variable);
}

/// The same for the keys of one definition.
fn admit_in(definition: &mut Value) {
    let keys = definition
        .get_mut("properties")
        .and_then(Value::as_object_mut);
    for (name, schema) in keys.into_iter().flatten() {
        if name == "vars" || is_any_text(schema) {
            continue;
        }
        let mut plain = schema.take();
        let about = plain
            .as_object_mut()
            .and_then(|it| it.remove("description"));
        *schema = json!({"anyOf": [plain, {"$ref": format!("#/$defs/{VARIABLE}")}]});
        if let Some(about) = about {
            schema["description"] = about;
        }
    }
}

/// Whether it takes any text, or nearly so, by itself.
fn is_any_text(schema: &Value) -> bool {
    let is_free = schema.get("pattern").is_none() && schema.get("enum").is_none();
    match &schema["type"] {
        Value::String(kind) => kind == "string" && is_free,
        Value::Array(kinds) => kinds.iter().any(|kind| kind == "string") && is_free,
        _ => {
            let any = schema["anyOf"].as_array();
            any.is_some_and(|any| any.iter().any(is_any_text))
        }
    }
}
