// MQTT.js as a command: node client.mjs pub|sub '{"url": …, "version": 3|4|5, "topic": …, …}'
// `sub` prints "subscribed", then one JSON line per message; `pub` ends when its messages are acknowledged.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.env.INTEROP_NODE_DIR}/`);
const mqtt = require("mqtt");

const [action, json] = process.argv.slice(2);
const task = JSON.parse(json);

function fail(error) {
  console.error(String(error?.message ?? error));
  process.exit(1);
}

const options = {
  clientId: task.clientId,
  protocolVersion: task.version,
  protocolId: task.version === 3 ? "MQIsdp" : "MQTT",
  clean: task.clean ?? true,
  reconnectPeriod: 0,
  connectTimeout: 8000,
  properties: task.properties,
  will: task.will && { ...task.will, payload: Buffer.from(task.will.payload) },
};
if (task.ca) options.ca = readFileSync(task.ca);
if (task.cert) Object.assign(options, { cert: readFileSync(task.cert), key: readFileSync(task.key) });

const client = mqtt.connect(task.url, options);
client.on("error", fail);
client.on("close", () => {
  if (!client.disconnecting) fail("closed by the broker");
});

client.on("message", (topic, payload, packet) => {
  const text = payload.length > 4096 ? `${payload.length} bytes` : payload.toString();
  const { qos, retain, dup, properties } = packet;
  console.log(JSON.stringify({ topic, payload: text, qos, retain, dup, properties }));
});

client.on("connect", async (connack) => {
  try {
    if (action === "sub") {
      const granted = await client.subscribeAsync(task.topic, { qos: task.qos, ...task.options });
      console.log(JSON.stringify({ subscribed: granted.map((entry) => entry.qos), present: connack.sessionPresent }));
      return;
    }
    for (const payload of task.payloads ?? ["x".repeat(task.bytes)]) {
      await client.publishAsync(task.topic, payload, { qos: task.qos, retain: task.retain, properties: task.publish });
    }
    await client.endAsync();
  } catch (error) {
    fail(error);
  }
});
