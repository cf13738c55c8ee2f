// hessian.js as a reader: takes bodies of Dubbo requests in hexadecimal, a line each, and prints what is in
// each as JSON: the head, the attachments that are texts, the names of the others; null where it cannot be read.
'use strict';

const readline = require('readline');
const hessian = require('hessian.js');

function read(body) {
  const decoder = new hessian.DecoderV2(body);
  const head = [0, 1, 2, 3, 4].map(() => decoder.read());
  if (!head.every((value) => typeof value === 'string')) throw new Error('no text in the head');
  if (head[4] !== '') decoder.read();
  const attachments = decoder.read();
  if (typeof attachments !== 'object' || attachments === null || Array.isArray(attachments)) {
    throw new Error('no map');
  }
  // With their names as they came: an object would have made texts of numbers.
  const entries = [...(attachments.$map || new Map(Object.entries(attachments)))];
  const isText = ([key, value]) => typeof key === 'string' && typeof value === 'string';
  return {
    head,
    texts: Object.fromEntries(entries.filter(isText)),
    others: entries.filter((entry) => !isText(entry)).map(([key]) => key),
  };
}

readline.createInterface({input: process.stdin}).on('line', (line) => {
  let found = null;
  try {
    found = read(Buffer.from(line, 'hex'));
  } catch (error) {
    found = null;
  }
  process.stdout.write(JSON.stringify(found) + '\n');
});
