// What a browser does with a login link: opens it, without what stands behind the #, and runs the page's script. Prints the
// cookie that it is given, and where it goes on to.
import { createContext, runInContext } from "node:vm";

const link = new URL(process.argv[2]);
const answer = await fetch(new URL(link.pathname, link));
const [, nonce, script] = (await answer.text()).match(/<script nonce="(\w+)">([^]*)<\/script>/);
if (!answer.headers.get("content-security-policy").includes(`'nonce-${nonce}'`)) {
  throw new Error("the page's policy would not run its script");
}

let cookie;
const page = {
  URL,
  URLSearchParams,
  document: { getElementById: () => ({ set textContent(said) { console.log(JSON.stringify({ said })); } }) },
  fetch: async (path, options) => {
    const answer = await fetch(new URL(path, link), options);
    cookie = answer.headers.getSetCookie()[0];
    return answer;
  },
  location: {
    hash: link.hash,
    origin: link.origin,
    pathname: link.pathname,
    replace: (next) => console.log(JSON.stringify({ cookie, next })),
  },
};
runInContext(script, createContext(page));
