// `node follow.js http://127.0.0.1:8080/tokens.json`: print the same statuses, a line of JSON for each.
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

import { follow } from "./live.js";

const load = async () => (await fetch(process.argv[2])).json();
const show = (followed, message) => console.log(JSON.stringify({ ...followed, message }));
await follow(Centrifuge, load, show, { websocket: WebSocket });
