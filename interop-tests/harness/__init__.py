"""What the interoperability tests share: the broker under test, an MQTT frame builder, a raw WebSocket, the runner."""
