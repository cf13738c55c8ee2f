// Captures more vectors of the Thrift codec, from the npm package "thrift"; see README.md.
"use strict";

const fs = require("fs");
const path = require("path");
const thrift = require("thrift");

const version = require("thrift/package.json").version;
const { Thrift } = thrift;
const CALL = Thrift.MessageType.CALL;
const REPLY = Thrift.MessageType.REPLY;
const ONEWAY = Thrift.MessageType.ONEWAY;
const NAMES = { [CALL]: "call", [REPLY]: "reply", [ONEWAY]: "oneway" };

function writeStruct(protocol, field) {
  protocol.writeStructBegin("struct");
  protocol.writeFieldBegin("text", Thrift.Type.STRING, field);
  protocol.writeString("hello");
  protocol.writeFieldEnd();
  protocol.writeFieldBegin("numbers", Thrift.Type.LIST, field + 1);
  protocol.writeListBegin(Thrift.Type.I64, 3);
  for (const number of [-1, 0, 1]) protocol.writeI64(number);
  protocol.writeListEnd();
  protocol.writeFieldEnd();
  protocol.writeFieldStop();
  protocol.writeStructEnd();
}

function capture(transport, protocolName, name, type, id, headers) {
  const Transport = transport === "framed" ? thrift.TFramedTransport : thrift.TBufferedTransport;
  const Inner = protocolName === "compact" ? thrift.TCompactProtocol : thrift.TBinaryProtocol;
  let wire = null;
  const trans = new Transport(null, (bytes) => {
    wire = Buffer.from(bytes);
  });
  let protocol;
  if (transport === "header") {
    trans.setProtocolId(protocolName === "compact" ? 2 : 0);
    for (const [key, value] of Object.entries(headers)) trans.setWriteHeader(key, value);
    protocol = new thrift.THeaderProtocol(trans);
  } else {
    protocol = new Inner(trans);
    if (protocolName === "binary/non-strict") protocol.strictWrite = false;
  }
  protocol.writeMessageBegin(name, type, id);
  writeStruct(protocol, type === REPLY ? 0 : 1);
  protocol.writeMessageEnd();
  protocol.flush();
  return wire;
}

function lines() {
  const out = [`# thrift (npm) ${version}`];
  const dialects = [];
  for (const transport of ["framed", "unframed"]) {
    for (const protocol of ["binary", "binary/non-strict", "compact"]) {
      dialects.push([transport, protocol]);
    }
  }
  dialects.push(["header", "binary"], ["header", "compact"]);
  for (const [transport, protocol] of dialects) {
    for (const service of ["", "DemoService"]) {
      for (const [method, type] of [["echo", CALL], ["echo", REPLY], ["notify", ONEWAY]]) {
        if (service && type === REPLY) continue;
        const headers = transport === "header" ? { user: "ann", trace: "0af7651916cd43dd" } : {};
        const pairs = Object.entries(headers).map(([key, value]) => `${key}=${value}`);
        const name = service ? `${service}:${method}` : method;
        const wire = capture(transport, protocol, name, type, 70000, headers);
        const columns = [transport, protocol, service || "-", method, NAMES[type]];
        columns.push(type === REPLY ? "ok" : "-", 70000, pairs.join(",") || "-");
        columns.push(wire.toString("hex"));
        out.push(columns.join(" "));
      }
    }
  }
  return out;
}

fs.writeFileSync(path.join(__dirname, "node.txt"), `${lines().join("\n")}\n`);
