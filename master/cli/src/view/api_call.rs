//! One call to a provider's API as a line, for `-v`. Pure.

use aot_proto::v1::ApiCall;

use super::format::seconds;
use super::style::Style;

/// `EC2 RunInstances us-west-2 200 ms 2 retries 0f3a-... InstanceType=m5.large error: Code: message`; with `MASTER:` before it
/// where another master made it than the one that is asked.
pub(crate) fn api_call_line(call: &ApiCall, style: Style) -> String {
    if call.operation.is_empty() {
        return style.dim(&one_line(&format!("note: {}", call.error)));
    }
    let took = seconds(call.ms as f64 / 1000.0);
    let retries = match call.retries {
        0 => String::new(),
        1 => "1 retry".to_owned(),
        more => format!("{more} retries"),
    };
    let master = match call.master.as_str() {
        "" => String::new(),
        id => format!("{id}:"),
    };
    let parts = [
        &master,
        &call.service,
        &call.operation,
        &call.region,
        &took,
        &retries,
        &call.request_id,
        &call.parameters,
    ];
    let parts: Vec<&str> = parts
        .into_iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    let mut line = style.dim(&one_line(&parts.join(" ")));
    if !call.error.is_empty() {
        line.push(' ');
        line.push_str(&style.bad(&one_line(&format!("error: {}", call.error))));
    }
    line
}

/// A call is a line.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_one_line() {
        let call = ApiCall {
            number: 7,
            service: "EC2".into(),
            operation: "RunInstances".into(),
            region: "us-west-2".into(),
            ms: 200,
            request_id: "0f3a".into(),
            parameters: "InstanceType=m5.large MinCount=2".into(),
            ..ApiCall::default()
        };
        let failed = ApiCall {
            retries: 2,
            ms: 3210,
            request_id: String::new(),
            error: "InsufficientInstanceCapacity: none\n\x1b[2J left".into(),
            ..call.clone()
        };
        let anothers = ApiCall {
            master: "b/1".into(),
            parameters: String::new(),
            ..call.clone()
        };
        let missing = ApiCall {
            error: "9 calls are missing here".into(),
            ..ApiCall::default()
        };
        let plain = |call| api_call_line(call, Style::default());
        assert_eq!(
            [
                plain(&call),
                plain(&failed),
                plain(&anothers),
                plain(&missing)
            ],
            [
                "EC2 RunInstances us-west-2 200 ms 0f3a InstanceType=m5.large MinCount=2",
                "EC2 RunInstances us-west-2 3.2 s 2 retries InstanceType=m5.large MinCount=2 \
                 error: InsufficientInstanceCapacity: none  [2J left",
                "b/1: EC2 RunInstances us-west-2 200 ms 0f3a",
                "note: 9 calls are missing here",
            ]
        );
        let coloured = api_call_line(&failed, Style { colour: true });
        let coloured = super::super::style::drawn(&coloured, true).into_owned();
        assert!(
            coloured.starts_with("\x1b[2mEC2") && coloured.contains("\x1b[31merror: "),
            "{coloured:?}"
        );
    }
}
