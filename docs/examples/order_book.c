/* The nodes of an order book in a pool of exact capacity: what the book may hold is known, and beyond it an order is refused
 * instead of growing memory. LOCKED: any thread may add and cancel, and exactly ORDERS_MOST orders fit. */
#include <poolmalloc.h>

#include <stdio.h>

enum { ORDERS_MOST = 10000, PRICES = 100 };

typedef struct order {
    struct order *next; /* at the same price, newest first */
    unsigned id, quantity;
} order;

typedef struct book {
    pm_pool *orders;
    order *at_price[PRICES];
} book;

static bool order_add(book *b, unsigned id, unsigned price, unsigned quantity)
{
    order *o = pm_pool_alloc(b->orders);
    if (!o)
        return false; /* full */
    *o = (order){b->at_price[price], id, quantity};
    b->at_price[price] = o;
    return true;
}

static bool order_cancel(book *b, unsigned id, unsigned price)
{
    for (order **at = &b->at_price[price]; *at; at = &(*at)->next)
        if ((*at)->id == id) {
            order *o = *at;
            *at = o->next;
            pm_pool_free(b->orders, o);
            return true;
        }
    return false;
}

static void quantity_add(void *block, void *sum) { *(unsigned long *)sum += ((order *)block)->quantity; }

int main(void)
{
    PM_POOL_AUTO pm_pool *orders = pm_pool_create(&(pm_pool_options){
        .struct_size = sizeof(pm_pool_options),
        .name = "orders",
        .block_size = sizeof(order),
        .initial_blocks = ORDERS_MOST,
        .max_blocks = ORDERS_MOST,
        .sharing = PM_SHARING_LOCKED,
        .overflow = PM_OVERFLOW_FAIL,
    });
    if (!orders)
        return 1;
    book b = {.orders = orders};
    unsigned accepted = 0, cancelled = 0;
    for (unsigned id = 0; id < ORDERS_MOST + 500; id++)
        accepted += order_add(&b, id, id % PRICES, 10);
    for (unsigned id = 0; id < ORDERS_MOST; id += 10)
        cancelled += order_cancel(&b, id, id % PRICES);

    unsigned long quantity = 0;
    pm_pool_visit(orders, quantity_add, &quantity);
    pm_pool_stats stats = {.struct_size = sizeof stats};
    pm_pool_stats_get(orders, &stats);
    printf("%u accepted, %u cancelled, %zu of %zu in the book, quantity %lu, %zu refused\n", accepted, cancelled, stats.used,
           stats.capacity, quantity, stats.failures);
    pm_pool_reset(orders); /* the end of the day: all orders at once */
    return accepted == ORDERS_MOST && cancelled == 1000 && stats.used == 9000 && quantity == 90000 && stats.failures == 500 ? 0 : 1;
}
