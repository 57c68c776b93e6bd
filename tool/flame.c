/* flame.c: what call stacks hold, as a flame graph: an SVG that can be searched and zoomed in any browser, and read without
 * scripts too: each box has a title. */
#include "held.h"
#include "svg.h"
#include "words.h"

#include <string.h>

#define WIDTH 1200.0
#define ROW 18
#define TOP 66       /* title, subtitle, search */
#define MARGIN 10.0
#define LEAST 0.4    /* pixels: what is narrower is left out */
#define GLYPH 6.6    /* pixels that a letter takes */

static const char script[] =
    "<script><![CDATA[\n"
    "'use strict';\n"
    "const root=document.documentElement,boxes=[...document.querySelectorAll('g.b')],found=document.getElementById('found');\n"
    "const left=b=>+b.dataset.x,wide=b=>+b.dataset.w,down=b=>+b.dataset.d;\n"
    "function lay(from,width){const k=1180/width;for(const b of boxes){const r=b.querySelector('rect'),t=b.querySelector('text');\n"
    " let x=(left(b)-from)*k,w=wide(b)*k;if(x<0){w+=x;x=0}w=Math.min(w,1180-x);b.style.display=w>0.3?'':'none';\n"
    " r.setAttribute('x',10+x);r.setAttribute('width',Math.max(w-0.5,0));t.setAttribute('x',13+x);\n"
    " const n=Math.floor((w-6)/6.6),s=b.dataset.n;t.textContent=n<3?'':s.length<=n?s:s.slice(0,n-1)+'\\u2026'}}\n"
    "function zoom(b){for(const o of boxes)o.classList.toggle('up',down(o)<down(b));lay(left(b),wide(b))}\n"
    "for(const b of boxes)b.addEventListener('click',()=>zoom(b));\n"
    "function search(){const what=prompt('Functions to mark (regular expression):');if(what===null)return;let e;\n"
    " try{e=new RegExp(what)}catch(x){found.textContent='no regular expression';return}\n"
    " const hits=[];for(const b of boxes){const y=what!==''&&e.test(b.dataset.n);b.classList.toggle('hit',y);if(y)hits.push(b)}\n"
    " let sum=0,end=-1;hits.sort((a,b)=>left(a)-left(b)||wide(b)-wide(a));\n"
    " for(const b of hits)if(left(b)>=end-1e-6){sum+=wide(b);end=left(b)+wide(b)}\n"
    " found.textContent=what===''?'':'marked: '+(sum*100/1180).toFixed(1)+' %'}\n"
    "document.getElementById('search').addEventListener('click',search);\n"
    "document.getElementById('reset').addEventListener('click',()=>{for(const b of boxes)b.classList.remove('up');lay(0,1180)});\n"
    "root.addEventListener('keydown',e=>{if((e.ctrlKey||e.metaKey)&&e.key==='f'){e.preventDefault();search()}});\n"
    "]]></script>\n";

static const char style[] =
    "<style>text{font:12px 'DejaVu Sans Mono',monospace;fill:#222}.t{font-size:16px;font-weight:bold}.s{fill:#555}"
    "g.b{cursor:pointer}g.b:hover rect{stroke:#000}g.hit rect{fill:#7fb8ff}g.up{opacity:.45}.k{fill:#06c;cursor:pointer}</style>\n";

typedef struct flame {
    const held_report *r;
    FILE *to;
    double whole;
    size_t bottom; /* y of the outermost row */
} flame;

/* Warm colours by name, so that a function has the same one everywhere; what has no name is grey. */
static void colour(FILE *to, const frame_name *name)
{
    unsigned hash = 2166136261u;
    for (const char *c = name->text; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 16777619u;
    if (name->known)
        fprintf(to, "rgb(%u,%u,%u)", 215 + hash % 40, 110 + hash / 64 % 110, 50 + hash / 16384 % 60);
    else
        fprintf(to, "rgb(%u,%u,%u)", 190 + hash % 30, 190 + hash % 30, 190 + hash % 30);
}

static void box(const flame *f, const held_node *n, const frame_name *name, double x, double width, size_t depth)
{
    double share = 100 * n->sum.bytes / f->whole;
    size_t y = f->bottom - depth * ROW, letters = width > 6 + 3 * GLYPH ? (size_t)((width - 6) / GLYPH) : 0;
    fprintf(f->to, "<g class=\"b\" data-x=\"%.2f\" data-w=\"%.2f\" data-d=\"%zu\" data-n=\"", x, width, depth);
    svg_escaped(f->to, name->text, 1000);
    fprintf(f->to, "\"><title>");
    svg_escaped(f->to, name->text, 1000);
    fprintf(f->to, ": %s ±%s, %.1f %%, %.0f blocks</title><rect x=\"%.2f\" y=\"%zu\" width=\"%.2f\" height=\"%d\" fill=\"", HUMAN(n->sum.bytes),
            HUMAN(held_error(&n->sum)), share, n->sum.blocks, MARGIN + x, y, width > 1 ? width - 0.5 : width, ROW - 1);
    colour(f->to, name);
    fprintf(f->to, "\"/><text x=\"%.2f\" y=\"%zu\">", MARGIN + x + 3, y + 13);
    if (letters >= 3 && strlen(name->text) > letters) {
        svg_escaped(f->to, name->text, letters - 1);
        fputs("…", f->to);
    } else if (letters >= 3) {
        svg_escaped(f->to, name->text, letters);
    }
    fputs("</text></g>\n", f->to);
}

static void boxes(const flame *f, const held_node *parent, double x, size_t depth)
{
    for (const held_node *n = parent->child; n; n = n->sibling) {
        double width = (WIDTH - 2 * MARGIN) * n->sum.bytes / f->whole;
        if (width < LEAST)
            break; /* largest first */
        box(f, n, unwinder_name(f->r->held->names, n->name), x, width, depth);
        boxes(f, n, x, depth + 1);
        x += width;
    }
}

static size_t depth_of(const flame *f, const held_node *parent)
{
    size_t most = 0;
    for (const held_node *n = parent->child; n && (WIDTH - 2 * MARGIN) * n->sum.bytes / f->whole >= LEAST; n = n->sibling) {
        size_t depth = 1 + depth_of(f, n);
        most = depth > most ? depth : most;
    }
    return most;
}

bool held_print_flame(const held_report *r, FILE *to)
{
    held_node *root = held_tree(r->held, r->look);
    const held_sum *all = &r->look->total;
    flame f = {r, to, all->bytes > 0 ? all->bytes : 1, 0};
    size_t rows = depth_of(&f, root);
    f.bottom = TOP + rows * ROW;
    const frame_name whole = {"all", true, false, 0};
    fprintf(to, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%zu\" viewBox=\"0 0 %.0f %zu\">\n%s", WIDTH,
            f.bottom + ROW + 10, WIDTH, f.bottom + ROW + 10, style);
    fprintf(to, "<rect width=\"100%%\" height=\"100%%\" fill=\"#fffdf7\"/>\n<text class=\"t\" x=\"%.0f\" y=\"24\">", MARGIN);
    svg_escaped(to, r->command, 40);
    fprintf(to, " (process %d): ", (int)r->pid);
    svg_escaped(to, r->what, 200);
    fprintf(to, "</text>\n<text class=\"s\" x=\"%.0f\" y=\"44\">width: %s ±%s in %.0f blocks, from %zu samples in %.1f s; the outermost function is at "
                "the bottom</text>\n",
            MARGIN, HUMAN(all->bytes), HUMAN(held_error(all)), all->blocks, all->samples, r->seconds);
    fprintf(to, "<text class=\"k\" id=\"search\" x=\"%.0f\" y=\"24\">search</text><text class=\"k\" id=\"reset\" x=\"%.0f\" y=\"24\">whole</text>"
                "<text id=\"found\" x=\"%.0f\" y=\"44\"></text>\n",
            WIDTH - 130, WIDTH - 60, WIDTH - 170);
    box(&f, root, &whole, 0, WIDTH - 2 * MARGIN, 0);
    boxes(&f, root, 0, 1);
    fprintf(to, "%s</svg>\n", script);
    held_tree_free(root);
    return fflush(to) == 0 && !ferror(to);
}
