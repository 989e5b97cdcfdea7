//! Kafka's own console tools against the shared broker.

use std::io::Write as _;
use std::process::Stdio;

use crate::support::servers::{kafka, kafka_tool};

/// A record as the console consumer prints it.
#[derive(Debug, Clone)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub headers: Vec<(String, String)>,
    pub key: String,
    pub value: String,
}

/// Reads the first `count` records of a topic, in the order of partition and offset.
pub fn consume(topic: &str, count: usize) -> Vec<Record> {
    let class = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let count = count.to_string();
    let mut arguments = vec!["--topic", topic, "--from-beginning", "--timeout-ms", "30000"];
    arguments.extend(["--max-messages", &count]);
    for property in
        ["print.partition=true", "print.offset=true", "print.headers=true", "print.key=true"]
    {
        arguments.extend(["--property", property]);
    }
    let output = kafka_tool(class, &arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut records: Vec<Record> = printed.lines().map(record).collect();
    assert_eq!(records.len().to_string(), count, "{said}");
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// `Partition:3<tab>Offset:0<tab>name:value,…<tab>key<tab>value`.
fn record(line: &str) -> Record {
    let parts: Vec<&str> = line.splitn(5, '\t').collect();
    let [partition, offset, headers, key, value] = parts[..] else { panic!("{line}") };
    let headers = headers.split(',').filter_map(|header| header.split_once(':'));
    Record {
        partition: partition.strip_prefix("Partition:").unwrap().parse().unwrap(),
        offset: offset.strip_prefix("Offset:").unwrap().parse().unwrap(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

/// Writes a record for each key, placed by the Java client's own partitioner.
pub fn produce(topic: &str, keys: &[String]) {
    let mut command = kafka().tool("org.apache.kafka.tools.ConsoleProducer");
    command.args(["--bootstrap-server", &kafka().bootstrap, "--topic", topic]);
    command.args(["--property", "parse.key=true", "--property", "key.separator=\t"]);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    let lines: String = keys.iter().map(|key| format!("{key}\tvalue\n")).collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What a tool prints, if it succeeds.
pub fn tool(class: &str, arguments: &[&str]) -> String {
    let output = kafka_tool(class, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
