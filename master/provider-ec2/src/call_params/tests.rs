//! Tests of `wire`: queries and JSON as short words, without secrets.

use proptest::prelude::*;

use super::*;

#[test]
fn queries_are_short_words() {
    for (body, wanted) in [
        (
            "Action=DescribeAddresses&Version=2016-11-15&DryRun=false",
            "",
        ),
        (
            "Action=X&Version=1&DryRun=true&Name=a+b%2Fc",
            "DryRun=true Name=\"a b/c\"",
        ),
        (
            "Action=X&Version=1&Filter.1.Name=tag%3Aaot%3Acluster-uuid&Filter.1.Value.1=u&Filter.2.Name=state&Filter.2.Value.1=a&Filter.2.Value.2=b",
            "Filter[tag:aot:cluster-uuid]=u Filter[state]=a,b",
        ),
        (
            "InstanceId.1=i-1&InstanceId.2=i-2&InstanceId.3=i-3&InstanceId.4=i-4&InstanceId.5=i-5&InstanceId.6=i-6&InstanceId.7=i-7",
            "InstanceId=i-1,i-2,i-3,i-4,i-5,...(7 in all)",
        ),
        (
            "ResourceId.1=i-1&Tag.1.Key=Name&Tag.1.Value=web1",
            "ResourceId=i-1 Tag[Name]=web1",
        ),
        (
            "ResourceId.1=i-1&Tag.1.Key=aot%3Achallenge&Tag.1.Value=c1.secret",
            "ResourceId=i-1 Tag[aot:challenge]=<hidden>",
        ),
        (
            "TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=Name&TagSpecification.1.Tag.1.Value=web&TagSpecification.2.ResourceType=volume&TagSpecification.2.Tag.1.Key=Name&TagSpecification.2.Tag.1.Value=web&MinCount=2",
            "MinCount=2 TagSpecification=instance,volume{Name=web}",
        ),
        (
            "BlockDeviceMapping.1.DeviceName=%2Fdev%2Fsdf&BlockDeviceMapping.1.Ebs.VolumeSize=8",
            "BlockDeviceMapping.1.DeviceName=/dev/sdf BlockDeviceMapping.1.Ebs.VolumeSize=8",
        ),
        (
            "UserData=aGVsbG8%3D&MinCount=1",
            "UserData=<5 bytes> MinCount=1",
        ),
        (
            "LaunchTemplateData.UserData.Value=aGVsbG8%3D",
            "LaunchTemplateData.UserData.Value=<5 bytes>",
        ),
        (
            "AdminPassword=x&ClientToken=t",
            "AdminPassword=<hidden> ClientToken=t",
        ),
    ] {
        assert_eq!(parameters(body.as_bytes()), wanted, "{body}");
    }
}

#[test]
fn json_is_read_too() {
    let body = br#"{"Names":["/aws/a","/aws/b"],"WithDecryption":false,"SecretString":"hush"}"#;
    assert_eq!(
        parameters(body),
        "Names=/aws/a,/aws/b WithDecryption=false SecretString=<hidden>"
    );
    assert_eq!(parameters(br#"{"cut off"#), "<unreadable>");
}

proptest! {
    #[test]
    fn any_body_gives_a_short_text(body: Vec<u8>) {
        prop_assert!(parameters(&body).len() <= MAX_PARAMETERS_BYTES);
    }

    #[test]
    fn user_data_is_never_shown(secret in "[a-zA-Z0-9]{12,40}", place in 1..4_u32) {
        let body = format!("A=1&UserData={secret}&UserData.{place}={secret}&B.UserData={secret}");
        prop_assert!(!parameters(body.as_bytes()).contains(&secret));
    }

    #[test]
    fn a_form_reads_what_was_written(key in "[A-Za-z.1-9]{1,9}", value in "\\PC{0,20}") {
        let coded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        prop_assert_eq!(form(&format!("{key}={coded}")), vec![(key, value)]);
    }
}
