// A Dubbo consumer on apache-dubbo-js: one call of each kind, printed as "<what>: <result>".
//   node consumer.js PORT VERSION
'use strict';

const {DirectlyDubbo, java} = require('apache-dubbo-js');

const [port, version] = process.argv.slice(2);

const dubbo = DirectlyDubbo.from({
  dubboAddress: `127.0.0.1:${port}`,
  dubboVersion: '2.0.2',
  dubboInvokeTimeout: 10,
});

const greeter = dubbo.proxyService({
  dubboInterface: 'org.metaprotocol.peer.DubboPeer$Greeter',
  version,
  timeout: 10,
  methods: {
    greet: (name) => [java.String(name)],
    add: (left, right) => [java.long(left), java.int(right)],
    describe: (thing) => [java.combine('org.metaprotocol.peer.DubboPeer$Thing', thing)],
    fail: (message) => [java.String(message)],
    nothing: () => [],
  },
});

async function main() {
  const calls = {
    greet: () => greeter.greet('Jürgen'),
    add: () => greeter.add(40, 2),
    describe: () => greeter.describe({name: java.String('thing'), small: java.int(-7)}),
    fail: () => greeter.fail('on purpose'),
    nothing: () => greeter.nothing(),
    large: () => greeter.greet('x'.repeat(100000)),
  };
  for (const [what, call] of Object.entries(calls)) {
    const {res, err} = await call();
    if (err) {
      console.log(`${what}: error ${err.message}`);
    } else {
      const text = typeof res === 'string' ? res : JSON.stringify(res);
      console.log(`${what}: ${text.length > 1000 ? text.length : text}`);
    }
  }
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
