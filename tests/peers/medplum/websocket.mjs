// Medplum's core names the WebSocket class while it loads. Node has one from 22 on; nothing here opens one.
globalThis.WebSocket ??= class WebSocket {};
