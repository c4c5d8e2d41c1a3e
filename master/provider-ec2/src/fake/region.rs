//! A small region for tests, behind the SDK's own clients: groups, images, types, subnets, parameters; with answers that
//! get lost and calls that fail. Knows the rules that the code leans on, and refuses what it does not know.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::{Answer, Request};

type Params = BTreeMap<String, String>;

/// What happens to one call.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// It is refused with this code, and does nothing.
    Refuse(&'static str),
    /// It does its work, and its answer is lost.
    Lose,
    /// It answers as if nothing were there.
    Blind,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    pub id: String,
    pub vpc: String,
    pub name: String,
    pub tags: Vec<(String, String)>,
    /// As `tcp 22-22 cidr:0.0.0.0/0`.
    pub rules: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub id: &'static str,
    pub owner: &'static str,
    pub name: &'static str,
    pub arch: &'static str,
    pub date: &'static str,
}

/// Everything that there is.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub groups: Vec<Group>,
    pub images: Vec<Image>,
    /// Name, architecture, drives, support of NVMe.
    pub types: Vec<(&'static str, &'static str, u32, &'static str)>,
    /// Id, VPC, Name tag.
    pub subnets: Vec<(&'static str, &'static str, &'static str)>,
    pub default_vpc: Option<&'static str>,
    pub parameters: BTreeMap<String, String>,
    /// Name, uuid of the cluster in its tags.
    pub placements: BTreeMap<String, String>,
    /// For the next calls of these operations, each once.
    pub faults: Vec<(&'static str, Fault)>,
    /// Every operation that was called.
    pub calls: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Fake(pub Arc<Mutex<World>>);

impl Fake {
    pub(crate) fn clients(&self) -> (aws_sdk_ec2::Client, aws_sdk_ssm::Client) {
        let fake = self.clone();
        let http = super::http(move |request| fake.with(|region| region.asked(&request)));
        super::clients("us-east-1", &http)
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// Operations since the last time, in order.
    pub(crate) fn called(&self) -> Vec<String> {
        self.with(|region| std::mem::take(&mut region.calls))
    }
}

/// `PREFIX.1`, `PREFIX.2`, ... as long as there are any.
fn numbered(params: &Params, prefix: &str) -> Vec<String> {
    let keys = (1..).map(|number| format!("{prefix}.{number}"));
    keys.take_while(|key| {
        let inside = format!("{key}.");
        params.contains_key(key) || params.keys().any(|it| it.starts_with(&inside))
    })
    .collect()
}

fn filter(params: &Params, name: &str) -> Vec<String> {
    let filters = numbered(params, "Filter");
    let found = filters
        .iter()
        .find(|key| params[&format!("{key}.Name")] == name);
    let values = found.map(|key| numbered(params, &format!("{key}.Value")));
    values
        .unwrap_or_default()
        .iter()
        .map(|key| params[key].clone())
        .collect()
}

fn tags(params: &Params) -> Vec<(String, String)> {
    let keys = numbered(params, "TagSpecification.1.Tag");
    let tag = |key: &String| {
        (
            params[&format!("{key}.Key")].clone(),
            params[&format!("{key}.Value")].clone(),
        )
    };
    keys.iter().map(tag).collect()
}

fn tag_set(tags: &[(String, String)]) -> String {
    let item = |(key, value): &(String, String)| {
        format!("<item><key>{key}</key><value>{value}</value></item>")
    };
    format!(
        "<tagSet>{}</tagSet>",
        tags.iter().map(item).collect::<String>()
    )
}

/// `*` at any place.
fn matches(pattern: &str, name: &str) -> bool {
    let parts: Vec<&str> = pattern.split('*').collect();
    let regex = parts
        .iter()
        .map(|part| regex::escape(part))
        .collect::<Vec<_>>()
        .join(".*");
    regex::Regex::new(&format!("^{regex}$"))
        .unwrap()
        .is_match(name)
}

fn error(code: &str) -> (u16, String) {
    let text = format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>no</Message></Error></Errors></Response>"
    );
    (400, text)
}

impl World {
    fn fault(&mut self, operation: &str) -> Option<Fault> {
        self.calls.push(operation.to_owned());
        let at = self
            .faults
            .iter()
            .position(|(name, _)| *name == operation)?;
        Some(self.faults.remove(at).1)
    }

    fn asked(&mut self, request: &Request) -> Answer {
        match request.operation.as_str() {
            "GetParameter" => self.parameter(&request.body),
            _ => self.answer(&request.params),
        }
    }

    fn parameter(&mut self, body: &str) -> Answer {
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        let name = json["Name"].as_str().unwrap();
        self.calls.push(format!("GetParameter {name}"));
        Some(match self.parameters.get(name) {
            Some(value) => (
                200,
                serde_json::json!({"Parameter": {"Name": name, "Value": value}}).to_string(),
            ),
            None => (400, r#"{"__type": "ParameterNotFound"}"#.to_owned()),
        })
    }

    fn answer(&mut self, params: &Params) -> Answer {
        let operation = params["Action"].clone();
        let fault = self.fault(&operation);
        if let Some(Fault::Refuse(code)) = fault {
            return Some(error(code));
        }
        let result = match operation.as_str() {
            _ if matches!(fault, Some(Fault::Blind)) => Ok(String::new()),
            "DescribeInstanceTypes" => Ok(self.instance_types(params)),
            "DescribeSubnets" => Ok(self.subnets(params)),
            "DescribeVpcs" => {
                let vpcs = self.default_vpc.iter();
                let items: String = vpcs
                    .map(|id| format!("<item><vpcId>{id}</vpcId></item>"))
                    .collect();
                Ok(format!("<vpcSet>{items}</vpcSet>"))
            }
            "DescribeImages" => Ok(self.image_set(params)),
            "DescribeSecurityGroups" => Ok(self.group_set(params)),
            "CreateSecurityGroup" => self.make_group(params),
            "AuthorizeSecurityGroupIngress" => self.add_rules(params),
            "DescribePlacementGroups" => {
                let names = filter(params, "group-name");
                let found = self.placements.keys().filter(|name| names.contains(name));
                let item = |name| {
                    format!("<item><groupName>{name}</groupName><state>available</state></item>")
                };
                Ok(format!(
                    "<placementGroupSet>{}</placementGroupSet>",
                    found.map(item).collect::<String>()
                ))
            }
            "CreatePlacementGroup" => self.make_placement(params),
            _ => Err("NotInThisFake"),
        };
        match (result, fault) {
            (_, Some(Fault::Lose)) => None,
            (Ok(body), _) => Some((
                200,
                format!("<{operation}Response>{body}</{operation}Response>"),
            )),
            (Err(code), _) => Some(error(code)),
        }
    }

    fn instance_types(&self, params: &Params) -> String {
        let names = filter(params, "instance-type");
        let found = self
            .types
            .iter()
            .filter(|it| names.contains(&it.0.to_owned()));
        let items: String = found
            .map(|(name, arch, drives, nvme)| {
                let storage = format!(
                    "<instanceStorageInfo><disks><item><count>{drives}</count><type>ssd</type></item></disks>\
                     <nvmeSupport>{nvme}</nvmeSupport></instanceStorageInfo>"
                );
                let storage = if *drives > 0 { storage } else { String::new() };
                format!(
                    "<item><instanceType>{name}</instanceType><processorInfo><supportedArchitectures><item>i386</item>\
                     <item>{arch}</item></supportedArchitectures></processorInfo>{storage}</item>"
                )
            })
            .collect();
        format!("<instanceTypeSet>{items}</instanceTypeSet>")
    }

    fn subnets(&self, params: &Params) -> String {
        let (ids, names) = (filter(params, "subnet-id"), filter(params, "tag:Name"));
        let is = |text: &str, list: &[String]| list.iter().any(|it| it == text);
        let found = self
            .subnets
            .iter()
            .filter(|it| is(it.0, &ids) || is(it.2, &names));
        let items: String = found
            .map(|(id, vpc, name)| {
                let tags = tag_set(&[("Name".into(), (*name).into())]);
                format!(
                    "<item><subnetId>{id}</subnetId><vpcId>{vpc}</vpcId><availabilityZone>z</availabilityZone>{tags}</item>"
                )
            })
            .collect();
        format!("<subnetSet>{items}</subnetSet>")
    }

    /// Two pages, as soon as there is more than one.
    fn image_set(&self, params: &Params) -> String {
        let (ids, names, archs) = (
            filter(params, "image-id"),
            filter(params, "name"),
            filter(params, "architecture"),
        );
        let owner = params.get("Owner.1");
        let is = |image: &&Image| {
            (ids.is_empty() || ids.contains(&image.id.to_owned()))
                && (names.is_empty() || names.iter().any(|name| matches(name, image.name)))
                && (archs.is_empty() || archs.contains(&image.arch.to_owned()))
                && owner.is_none_or(|owner| owner == image.owner)
        };
        let found: Vec<&Image> = self.images.iter().filter(is).collect();
        let second = params.contains_key("NextToken");
        let (page, more) = match found.split_first() {
            Some((first, rest)) if !rest.is_empty() && !second => {
                (vec![*first], "<nextToken>2</nextToken>")
            }
            Some((_, rest)) if second => (rest.to_vec(), ""),
            _ => (found, ""),
        };
        let item = |image: &&Image| {
            format!(
                "<item><imageId>{}</imageId><architecture>{}</architecture><creationDate>{}</creationDate>\
                 <imageState>available</imageState><rootDeviceName>/dev/xvda</rootDeviceName></item>",
                image.id, image.arch, image.date
            )
        };
        format!(
            "<imagesSet>{}</imagesSet>{more}",
            page.iter().map(item).collect::<String>()
        )
    }

    fn group_set(&self, params: &Params) -> String {
        let (names, vpcs) = (filter(params, "group-name"), filter(params, "vpc-id"));
        let found = self.groups.iter().filter(|group| {
            let is_named = names.iter().any(|name| matches(name, &group.name));
            (names.is_empty() || is_named) && vpcs.contains(&group.vpc)
        });
        let item = |group: &Group| {
            let rules: String = group.rules.iter().map(|rule| permission(rule)).collect();
            format!(
                "<item><groupId>{}</groupId><groupName>{}</groupName><vpcId>{}</vpcId>{}<ipPermissions>{rules}\
                 </ipPermissions></item>",
                group.id,
                group.name,
                group.vpc,
                tag_set(&group.tags)
            )
        };
        format!(
            "<securityGroupInfo>{}</securityGroupInfo>",
            found.map(item).collect::<String>()
        )
    }

    fn make_group(&mut self, params: &Params) -> Result<String, &'static str> {
        let (name, vpc) = (params["GroupName"].clone(), params["VpcId"].clone());
        if self
            .groups
            .iter()
            .any(|it| it.name.to_lowercase() == name.to_lowercase() && it.vpc == vpc)
        {
            return Err("InvalidGroup.Duplicate");
        }
        assert_eq!(params["TagSpecification.1.ResourceType"], "security-group");
        let id = format!("sg-{}", self.groups.len() + 1);
        self.groups.push(Group {
            id: id.clone(),
            vpc,
            name,
            tags: tags(params),
            rules: Vec::new(),
        });
        Ok(format!("<groupId>{id}</groupId>"))
    }

    /// All rules or none.
    fn add_rules(&mut self, params: &Params) -> Result<String, &'static str> {
        let mut rules = Vec::new();
        for key in numbered(params, "IpPermissions") {
            let get = |name: &str| {
                params
                    .get(&format!("{key}.{name}"))
                    .map_or("", String::as_str)
            };
            let what = format!(
                "{} {},{}",
                get("IpProtocol"),
                get("FromPort"),
                get("ToPort")
            );
            for (list, field, word) in [
                ("IpRanges", "CidrIp", "v4"),
                ("Ipv6Ranges", "CidrIpv6", "v6"),
                ("Groups", "GroupId", "group"),
            ] {
                for source in numbered(params, &format!("{key}.{list}")) {
                    let text = &params[&format!("{source}.{field}")];
                    rules.push(format!("{what} {word}={text}"));
                }
            }
        }
        let id = &params["GroupId"];
        let group = self.groups.iter_mut().find(|it| it.id == *id);
        let group = group.ok_or("InvalidGroup.NotFound")?;
        if rules.iter().any(|rule| group.rules.contains(rule)) {
            return Err("InvalidPermission.Duplicate");
        }
        group.rules.extend(rules);
        Ok(String::new())
    }

    fn make_placement(&mut self, params: &Params) -> Result<String, &'static str> {
        let name = params["GroupName"].clone();
        if self.placements.contains_key(&name) {
            return Err("InvalidPlacementGroup.Duplicate");
        }
        assert_eq!(params["Strategy"], "cluster");
        let uuid = tags(params)
            .into_iter()
            .find(|(key, _)| key == "aot:cluster-uuid");
        self.placements.insert(name, uuid.unwrap().1);
        Ok(String::new())
    }
}

fn permission(rule: &str) -> String {
    let (what, source) = rule.rsplit_once(' ').unwrap();
    let (protocol, ports) = what.split_once(' ').unwrap();
    let (from, to) = ports.split_once(',').unwrap();
    let ports = if from.is_empty() {
        String::new()
    } else {
        format!("<fromPort>{from}</fromPort><toPort>{to}</toPort>")
    };
    let source = match source.split_once('=').unwrap() {
        ("v4", text) => format!("<ipRanges><item><cidrIp>{text}</cidrIp></item></ipRanges>"),
        ("v6", text) => {
            format!("<ipv6Ranges><item><cidrIpv6>{text}</cidrIpv6></item></ipv6Ranges>")
        }
        (_, text) => format!("<groups><item><groupId>{text}</groupId></item></groups>"),
    };
    format!("<item><ipProtocol>{protocol}</ipProtocol>{ports}{source}</item>")
}
