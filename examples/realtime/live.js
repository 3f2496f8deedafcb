// Follow live statuses. `load` returns what `optaic status token NAME... --show-tokens -o json` prints; `show(followed, message)` gets
// each status of a `channel` with its `name` in order, and null in place of a message where some were missed: then read the status anew.
export async function follow(Centrifuge, load, show, options = {}) {
  const given = await load();
  const client = new Centrifuge(given.url, {
    ...options,
    token: given.connection_token,
    getToken: async () => (await load()).connection_token,
  });
  for (const { topic, channel, token, instance_name: name } of given.subscriptions) {
    if (topic !== "REALTIME_TOPIC_STATUS") continue;
    const followed = { channel, name };
    const subscription = client.newSubscription(channel, {
      token,
      getToken: async () => (await load()).subscriptions.find((each) => each.channel === channel).token,
      since: { offset: 0, epoch: "" }, // begin with what the channel keeps
    });
    let revision;
    subscription.on("subscribed", ({ wasRecovering, recovered }) => {
      if (wasRecovering && !recovered) show(followed, (revision = null));
    });
    subscription.on("publication", ({ data }) => {
      if (revision && data.revision <= revision) return; // an older one came again
      if (revision && data.previous_revision !== revision) show(followed, null);
      revision = data.revision;
      show(followed, data);
    });
    subscription.subscribe();
  }
  client.connect();
  return client;
}
